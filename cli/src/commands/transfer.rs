//! How far a file from elsewhere is: a bar on a terminal, plain lines anywhere else.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    exit::{Exit, Fault},
    hub::{HubError, Progress},
    out,
};

/// Plain lines about one file come no faster than this.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Shows one file.
pub(super) struct Transfer {
    name: String,
    show: Show,
}

enum Show {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Transfer {
    pub(super) fn new(name: &str) -> Self {
        let show = if io::stderr().is_terminal() {
            let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
            let style = ProgressStyle::with_template(template)
                .expect("the template is a constant of this file");
            let bar = ProgressBar::new(0).with_style(style);
            Show::Bar(bar.with_message(name.to_owned()))
        } else {
            Show::Lines { last: None }
        };
        Self {
            name: name.to_owned(),
            show,
        }
    }

    pub(super) fn at(&mut self, progress: Progress) {
        let Progress { done, total } = progress;
        match &mut self.show {
            Show::Bar(bar) => {
                bar.set_length(total.unwrap_or(done));
                bar.set_position(done);
            }
            Show::Lines { last } => {
                let now = Instant::now();
                if last.is_some_and(|last| now.duration_since(last) < LINE_INTERVAL) {
                    return;
                }
                *last = Some(now);
                let total = total.map_or_else(String::new, |n| format!(" of {}", out::bytes(n)));
                // Nobody may be reading; the file comes all the same.
                let _ = writeln!(
                    io::stderr().lock(),
                    "{}: {}{total}",
                    self.name,
                    out::bytes(done)
                );
            }
        }
    }

    pub(super) fn finish(self) {
        if let Show::Bar(bar) = self.show {
            bar.finish_and_clear();
        }
    }
}

/// Gives what the hub refused its exit code.
pub(super) fn fault(error: HubError) -> Fault {
    let exit = match &error {
        HubError::Unreachable { .. } | HubError::Checksum { .. } => Exit::Temporary,
        HubError::Local { .. } => Exit::Internal,
        _ => Exit::Usage,
    };
    Fault {
        exit,
        error: anyhow::Error::new(error),
    }
}
