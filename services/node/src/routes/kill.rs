//! `POST /kill?token=…&after_ms=0&mode=crash|graceful|pause&for_ms=…`: a fault on request, for benchmarks. Off unless
//! ALLOW_KILL, and then only with KILL_TOKEN.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use crate::{app::HttpWorker, fault::Fault, problem::Problem, query, token::Token};

/// The longest `after_ms` and `for_ms`.
const WAIT_MS_MAX: u64 = 10 * 60 * 1000;

/// Executes an order to stop, crash or pause.
pub(super) async fn kill(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    match parse(request.uri().query(), http.app.kill_token.as_ref()) {
        Ok((fault, after)) => {
            fault.schedule(Arc::clone(&http.app), after);
            let mut response = super::text("text/plain; charset=utf-8", "bye");
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        Err(problem) => problem.respond(&http.app.telemetry),
    }
}

fn parse(query: Option<&str>, token: Option<&Token>) -> Result<(Fault, Duration), Problem> {
    // Before anything else, so that a node that cannot be killed tells nothing about its parameters.
    let token = allowed(token)?;
    let [guess, after_ms, mode, for_ms] = query::parameters(query, ["token", "after_ms", "mode", "for_ms"])?;
    authorise(token, guess)?;
    let after = Duration::from_millis(query::number("after_ms", after_ms, 0, WAIT_MS_MAX)?);
    let pause = for_ms.map(|text| query::number("for_ms", Some(text), 0, WAIT_MS_MAX)).transpose()?;
    let fault = match (mode.unwrap_or("crash"), pause) {
        ("crash", None) => Fault::Crash,
        ("graceful", None) => Fault::Graceful,
        ("pause", Some(millis)) => Fault::Pause(Duration::from_millis(millis)),
        ("pause", None) => {
            return Err(Problem::bad_request("parameter-missing", "mode=pause needs `for_ms`, in milliseconds"));
        }
        ("crash" | "graceful", Some(_)) => {
            return Err(Problem::bad_request("parameter-unknown", "`for_ms` goes with mode=pause only"));
        }
        _ => return Err(Problem::bad_request("mode-unknown", "`mode` must be crash, graceful or pause")),
    };
    Ok((fault, after))
}

/// The token that faults on request need, if they are on at all.
pub(super) fn allowed(token: Option<&Token>) -> Result<&Token, Problem> {
    token.ok_or_else(|| {
        let detail = "killing is off: start the node with ALLOW_KILL=true and KILL_TOKEN";
        Problem::new(StatusCode::FORBIDDEN, "kill-off", detail)
    })
}

/// Whether who asks knows the token.
pub(super) fn authorise(token: &Token, guess: Option<&str>) -> Result<(), Problem> {
    let guess = query::decode("token", guess.unwrap_or_default())?;
    if token.matches(&guess) {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "token-wrong", "`token` must be the node's KILL_TOKEN");
    Err(problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Token realm=\"kill\"")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new("to ken")
    }

    fn status(query: &str) -> String {
        format!("{:?}", parse(Some(query), Some(&token())).unwrap_err())
    }

    #[test]
    fn off_means_off_whatever_is_asked() {
        let refusal = format!("{:?}", parse(Some("token=to%20ken&mode=x"), None).unwrap_err());
        assert!(refusal.contains("403"), "{refusal}");
    }

    #[test]
    fn only_the_token_opens() {
        for wrong in ["", "token=", "token=to", "token=to%20kex", "token=to%20ken%20", "token=to%2Bken"] {
            assert!(status(wrong).contains("401"), "{wrong}");
        }
    }

    #[test]
    fn faults_are_understood() {
        let parse = |query: &str| parse(Some(&format!("token=to%20ken{query}")), Some(&token())).unwrap();
        assert_eq!(parse(""), (Fault::Crash, Duration::ZERO));
        assert_eq!(parse("&mode=graceful&after_ms=600000"), (Fault::Graceful, Duration::from_secs(600)));
        assert_eq!(parse("&mode=pause&for_ms=50"), (Fault::Pause(Duration::from_millis(50)), Duration::ZERO));
    }

    #[test]
    fn bad_faults_are_refused() {
        for bad in
            ["&mode=x", "&after_ms=x", "&after_ms=600001", "&mode=pause", "&mode=pause&for_ms=600001", "&for_ms=5"]
        {
            let refusal = status(&format!("token=to%20ken{bad}"));
            assert!(refusal.contains("400"), "{bad}: {refusal}");
        }
    }
}
