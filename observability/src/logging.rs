//! Where log lines go and what they look like. Logs are for rare things: start, stop, members, faults; never for a request.

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What a log line looks like.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why logging was not set up. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("expected a filter such as `info` or `warn,mesh=debug`: {0}")]
    Filter(String),
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    AlreadySet,
}

/// The filter, if it can be read.
///
/// # Errors
/// [`LoggingError::Filter`] if it cannot.
pub fn check_filter(filter: &str) -> Result<String, LoggingError> {
    parse_filter(filter).map(|_| filter.to_owned())
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
    fn filters_are_checked_before_use() {
        assert_eq!(check_filter("info").as_deref(), Ok("info"));
        assert!(check_filter("warn,mesh=debug").is_ok());
        assert!(matches!(check_filter("mesh=loud"), Err(LoggingError::Filter(_))));
    }
}
