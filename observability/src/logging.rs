//! Where log lines go and what they look like. Logs are for rare things: start, stop, members, faults; never for a request.

use std::str::FromStr;

use anstream::{AutoStream, ColorChoice};
use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format),
        }
    }
}

/// Why logging was not set up. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoggingError {
    /// No such format.
    #[error("expected text or json")]
    Format,
    /// The filter cannot be read.
    #[error("expected a filter such as `info` or `warn,mesh=debug`: {0}")]
    Filter(String),
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Checks a filter without using it.
///
/// # Errors
/// [`LoggingError::Filter`] if it cannot be read.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse_filter(filter).map(drop)
}

/// Sends log lines to standard error from now on.
///
/// # Errors
/// [`LoggingError`] if the filter cannot be read, or logging is set up already.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let registry = tracing_subscriber::registry().with(parse_filter(filter)?);
    // A log that cannot be written is lost: nobody is told so on the same standard error.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let started = match format {
        LogFormat::Text => {
            // Colours only on a terminal; NO_COLOR and CLICOLOR_FORCE decide otherwise.
            let colours = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            registry.with(lines.with_ansi(colours)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|_| LoggingError::AlreadySet)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|error| LoggingError::Filter(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_and_nothing_else_is_accepted() {
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("xml".parse::<LogFormat>(), Err(LoggingError::Format));
    }

    #[test]
    fn filters_are_checked_before_use() {
        assert_eq!(check_filter("info"), Ok(()));
        assert_eq!(check_filter("warn,mesh=debug"), Ok(()));
        assert!(matches!(check_filter("mesh=loud"), Err(LoggingError::Filter(_))));
    }
}
