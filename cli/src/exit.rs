//! Exit codes: part of what scripts may rely on.
//!
//! | code | meaning |
//! | ---: | --- |
//! | 0 | everything asked for was done |
//! | 1 | a check that was asked for failed: `doctor` found something that stops measuring, kernels do not `agree`, or `model verify` found wrong numbers, or `compare` found a figure worse, or `verify` found results that nobody signed so |
//! | 2 | usage or configuration: a bad flag, a refused plan, a model file that cannot be read |
//! | 3 | inconclusive or not comparable: a reference that cannot judge the model it was given for, or a `compare` whose items do not tell, or `verify` found attempts without a signature |
//! | 4 | nothing selected: the run or bundle holds no result to show |
//! | 5 | finished with jobs or items missing, or interrupted: `run --resume` continues |
//! | 70 | internal error |
//! | 75 | temporary: a coordinator that cannot be reached, a folder another process holds |

use std::{error::Error as StdError, fmt, process::ExitCode};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Pass = 0,
    /// A check failed.
    GateFailed = 1,
    /// The caller's mistake: flags, plan, files.
    Usage = 2,
    /// Not comparable.
    Inconclusive = 3,
    /// There is nothing to show.
    NothingSelected = 4,
    /// Finished, but not whole.
    Incomplete = 5,
    /// A fault of Tritmark or of the machine it runs on.
    Internal = 70,
    /// May succeed if tried again.
    Temporary = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the exit code it leads to.
pub(crate) struct Fault {
    /// The code.
    pub(crate) exit: Exit,
    /// What went wrong, outermost first.
    pub(crate) error: anyhow::Error,
}

/// What a command returns.
pub(crate) type Outcome<T = Exit> = Result<T, Fault>;

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:#}", self.exit, self.error)
    }
}

/// An error nobody gave a code is an internal one.
impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::Internal,
            error: error.into(),
        }
    }
}

impl Fault {
    /// Returns a fault of the caller's making.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            error: anyhow::anyhow!("{message}"),
        }
    }

    /// Returns a fault that may pass.
    pub(crate) fn temporary(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Temporary,
            error: anyhow::anyhow!("{message}"),
        }
    }

    /// Tells whether the reader of our output went away, which is no fault at all.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.error.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
        })
    }

    /// Returns the chain of causes in one line, each said once.
    pub(crate) fn chain(&self) -> String {
        let mut line = String::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            if line.ends_with(&text) {
                continue;
            }
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        line
    }
}

/// Gives an error its exit code where it happens.
pub(crate) trait OrExit<T> {
    /// Turns an error into a fault with `exit` that says `what` could not be done.
    fn or_exit<C: fmt::Display + Send + Sync + 'static>(
        self,
        exit: Exit,
        what: impl FnOnce() -> C,
    ) -> Outcome<T>;
}

impl<T, E: StdError + Send + Sync + 'static> OrExit<T> for Result<T, E> {
    fn or_exit<C: fmt::Display + Send + Sync + 'static>(
        self,
        exit: Exit,
        what: impl FnOnce() -> C,
    ) -> Outcome<T> {
        self.map_err(|error| Fault {
            exit,
            error: anyhow::Error::new(error).context(what()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_the_documented_ones() {
        let codes = [
            (Exit::Pass, 0),
            (Exit::GateFailed, 1),
            (Exit::Usage, 2),
            (Exit::Inconclusive, 3),
            (Exit::NothingSelected, 4),
            (Exit::Incomplete, 5),
            (Exit::Internal, 70),
            (Exit::Temporary, 75),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code, "{exit:?}");
        }
    }

    #[test]
    fn an_error_without_a_code_is_internal() {
        let fault = Fault::from(std::io::Error::other("disk full"));
        assert_eq!(fault.exit, Exit::Internal);
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let inner = std::io::Error::other("no such file");
        let fault = Err::<(), _>(inner)
            .or_exit(Exit::Usage, || "cannot read plan.toml")
            .expect_err("it is an error");
        assert_eq!(fault.chain(), "cannot read plan.toml: no such file");
        assert_eq!(fault.exit, Exit::Usage);
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_other_faults() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(Fault::from(gone).is_broken_pipe());
        assert!(!Fault::usage("no plan").is_broken_pipe());
    }
}
