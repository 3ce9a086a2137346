//! Logs: one subscriber for the process, to stderr, readable or as JSON lines, with a filter.
//!
//! Owns: the format, the filter's syntax check, and setting up once. stdout is never touched: it carries results.
//! Colours appear only when stderr is a terminal and `NO_COLOR` is not set.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::cli::{Globals, usage};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Human,
    /// One JSON object an event.
    Json,
}

impl LogFormat {
    /// The name used in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        }
    }
}

/// Checks a filter such as `info,weft_net=debug` without using it.
///
/// # Errors
/// A phrase that says what is accepted.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let accepted = || {
        "a level (error, warn, info, debug, trace, off) or a filter such as info,weft_net=debug".to_owned()
    };
    // `EnvFilter` takes a bare word for a target's name; here a word alone can only be meant as a level.
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let bare_ok = filter.split(',').all(|part| part.contains(['=', '[']) || levels.contains(&part.trim()));
    if filter.trim().is_empty() || !bare_ok {
        return Err(accepted());
    }
    EnvFilter::try_new(filter).map(|_| ()).map_err(|_| accepted())
}

/// Starts logging with the filter and format given. The first call of a process counts; later ones do nothing.
///
/// # Errors
/// A usage error if the filter cannot be read.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    check_filter(filter).map_err(|accepted| usage(format!("log filter: got {filter:?}, need {accepted}")))?;
    let filter = EnvFilter::try_new(filter)?;
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // An embedder or a test may have set its own subscriber first: that one stays.
    let _ = match format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}

/// Logging for commands other than `node`: the flags, else `WEFT_LOG` and `WEFT_LOG_FORMAT`, else warnings only.
///
/// # Errors
/// A usage error if the filter or the format cannot be read.
pub fn init_for_command(globals: &Globals) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let filter = globals.log.clone().or_else(|| variable("WEFT_LOG")).unwrap_or_else(|| "warn".to_owned());
    let format = match (globals.log_format, variable("WEFT_LOG_FORMAT").as_deref()) {
        (Some(format), _) => format,
        (None, None | Some("human")) => LogFormat::Human,
        (None, Some("json")) => LogFormat::Json,
        (None, Some(other)) => {
            return Err(usage(format!(
                "environment WEFT_LOG_FORMAT: got {other:?}, need one of human, json"
            )));
        }
    };
    init(&filter, format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_targets_with_levels() {
        for good in ["info", "warn,weft_net=debug", "off", "weft_node[batch]=trace"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "loud", "info,chatty", "weft_net=loud"] {
            assert!(check_filter(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
