//! The parts of a running agent that the pages below `/debug` show and change.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::config::Config;
use super::history::StatusHistory;
use super::log_level::LogLevel;
use super::operator::OperatorSecret;
use super::sections::RecorderConfig;
use super::start_error::{StartError, system_error};
use crate::bridge::FlightRecorder;

/// The state of the pages below `/debug`.
pub struct DebugState {
    /// The level of the log; `None` where it can't be changed.
    pub log: Option<Arc<LogLevel>>,
    /// The flight recorder.
    pub recorder: Arc<FlightRecorder>,
    /// Required for changes and events; `None` where the listener authenticates.
    pub secret: Option<OperatorSecret>,
    /// The status of the last hour.
    pub history: StatusHistory,
}

impl DebugState {
    /// The state of an agent that starts.
    ///
    /// # Errors
    /// When the secret can't be written.
    pub(super) fn new(
        config: &Config,
        log: Option<Arc<LogLevel>>,
        recorder: &Arc<FlightRecorder>,
    ) -> Result<Self, StartError> {
        let recorder = Arc::clone(recorder);
        if config.debug.recorder.enabled {
            apply(&config.debug.recorder, &recorder);
        }
        let admin = config.admin.access();
        let has_client_ca = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        // The listener of a socket knows the user of each connection.
        let is_authenticated =
            admin.token_file.is_some() || has_client_ca || config.admin.listen.tcp().is_none();
        let secret = (!is_authenticated).then(|| OperatorSecret::create(&config.state_dir()));
        let secret = secret.transpose().map_err(system_error("operator.secret"))?;
        Ok(Self { log, recorder, secret, history: StatusHistory::default() })
    }

    /// Takes over the section `debug.recorder` where it has changed.
    pub(super) fn reload(&self, old: &RecorderConfig, new: &RecorderConfig) {
        if new != old {
            apply(new, &self.recorder);
        }
    }

    /// Ends what was to last for a time. To be called about once a second.
    pub(super) fn poll(&self) {
        self.recorder.poll();
        if let Some(log) = &self.log {
            log.poll();
        }
    }

    pub(super) fn json(&self) -> Json {
        json!({
            "log": self.log.as_ref().map(|log| log.json()),
            "recorder": self.recorder.json(),
        })
    }
}

fn apply(config: &RecorderConfig, recorder: &FlightRecorder) {
    if config.enabled {
        recorder.start(config.limits(), None);
    } else {
        recorder.stop();
    }
}
