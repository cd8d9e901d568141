//! Where log lines go and what they look like. Logs are for rare things: start, stop, members, faults; never for a request.

use std::fmt;

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use thiserror::Error;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{TraceGuard, trace};

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

/// Sends log lines to standard error from now on, and the program's own spans to where `traces` sends its spans. A line within such a
/// span names both as `trace_id` and `span_id`.
///
/// # Errors
/// [`LoggingError`] if the filter cannot be read, or logging is set up already.
pub fn init_logging(format: LogFormat, filter: &str, traces: &TraceGuard) -> Result<(), LoggingError> {
    // A line shows its own fields: what its span says is in the trace.
    let filter = parse_filter(filter)?.and(filter_fn(|metadata| metadata.is_event()));
    // A log that cannot be written is lost: nobody is told so on the same standard error.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => {
            // Colours only on a terminal; NO_COLOR and CLICOLOR_FORCE decide otherwise.
            let colours = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            let line = Traced { line: format::format().with_ansi(colours), is_json: false };
            lines.with_ansi(colours).event_format(line).boxed()
        }
        LogFormat::Json => {
            let line = Traced { line: format::format().json().flatten_event(true), is_json: true };
            lines.json().event_format(line).boxed()
        }
    };
    let started =
        tracing_subscriber::registry().with(trace::layer_of(traces)).with(lines.with_filter(filter)).try_init();
    started.map_err(|_| LoggingError::AlreadySet)
}

/// Sends the program's own spans to where `traces` sends its spans, and writes no log.
///
/// # Errors
/// [`LoggingError::AlreadySet`].
pub fn init_spans(traces: &TraceGuard) -> Result<(), LoggingError> {
    let started = tracing_subscriber::registry().with(trace::layer_of(traces)).try_init();
    started.map_err(|_| LoggingError::AlreadySet)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|error| LoggingError::Filter(error.to_string()))
}

/// A line, and the trace that it belongs to.
struct Traced<L> {
    line: L,
    is_json: bool,
}

impl<L, S, N> FormatEvent<S, N> for Traced<L>
where
    L: FormatEvent<S, N>,
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let current = opentelemetry::Context::current();
        let span = current.span();
        let place = span.span_context();
        if !place.is_valid() {
            return self.line.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with_trace(line.trim_end(), self.is_json, place))
    }
}

fn with_trace(line: &str, is_json: bool, place: &SpanContext) -> String {
    let (trace, span) = (place.trace_id(), place.span_id());
    match line.strip_suffix('}').filter(|_| is_json) {
        Some(open) => format!("{open},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}\n"),
        None => format!("{line} trace_id={trace} span_id={span}\n"),
    }
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
