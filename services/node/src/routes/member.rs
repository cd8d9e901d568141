//! `DELETE /member?id=ID&token=…`: has a member that is gone for good forgotten, here and at all others, before FORGET_AFTER does.
//! HTTP_ADMIN_TOKEN allows it; without one it is off unless ALLOW_KILL, and then only with KILL_TOKEN.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use mesh_proto::NodeId;
use serde_json::json;

use super::kill::{allowed, authorise};
use crate::{app::HttpWorker, problem::Problem, query, token::Token};

/// 200 once it is forgotten; 404 if it is not known, or not gone.
pub(super) async fn forget(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    let app = &http.app;
    let kill_token = if app.authorization.guards_admin() { None } else { Some(app.kill_token.as_ref()) };
    match parse(request.uri().query(), kill_token) {
        Ok(id) if app.node.forget(id).await => super::json(&json!({ "forgotten": id.to_string() })),
        Ok(id) => {
            let detail = format!("no member {id} is dead or has left: GET /cluster lists all");
            Problem::new(StatusCode::NOT_FOUND, "member-unknown", detail).respond(&app.telemetry)
        }
        Err(problem) => problem.respond(&app.telemetry),
    }
}

/// `kill_token` is nothing if the request has shown HTTP_ADMIN_TOKEN.
fn parse(query: Option<&str>, kill_token: Option<Option<&Token>>) -> Result<NodeId, Problem> {
    let token = kill_token.map(allowed).transpose()?;
    let [guess, id] = query::parameters(query, ["token", "id"])?;
    token.map_or(Ok(()), |token| authorise(token, guess))?;
    let id = id.filter(|id| id.len() == 16).and_then(|id| u64::from_str_radix(id, 16).ok());
    let malformed =
        || Problem::bad_request("id-malformed", "`id` must be 16 hexadecimal digits, as /cluster shows them");
    id.map(NodeId::new).ok_or_else(malformed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_cluster() {
        let token = Token::new("t");
        let id = NodeId::from_name("node1");
        assert_eq!(parse(Some(&format!("token=t&id={id}")), Some(Some(&token))).unwrap(), id);
        assert_eq!(parse(Some(&format!("id={id}")), None).unwrap(), id);
        for (query, expected) in [("id=0000000000000001", "401"), ("token=t", "400"), ("token=t&id=xyz", "400")] {
            let refusal = format!("{:?}", parse(Some(query), Some(Some(&token))).unwrap_err());
            assert!(refusal.contains(expected), "{query}: {refusal}");
        }
        assert!(format!("{:?}", parse(Some("token=t"), Some(None)).unwrap_err()).contains("403"));
    }
}
