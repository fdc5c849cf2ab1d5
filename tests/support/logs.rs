use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

/// Keeps the log lines of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<Line>>>);

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) when: Instant,
    pub(crate) level: Level,
    pub(crate) text: String,
}

impl Logs {
    /// For the whole process: to be called once in it.
    pub(crate) fn capture() -> Self {
        let logs = Self::default();
        tracing::subscriber::set_global_default(logs.clone()).unwrap();
        logs
    }

    /// The lines that contain `text`.
    pub(crate) fn with(&self, text: &str) -> Vec<Line> {
        self.0.lock().unwrap().iter().filter(|line| line.text.contains(text)).cloned().collect()
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("corelane") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let line = Line { when: Instant::now(), level: *event.metadata().level(), text: text.0 };
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
