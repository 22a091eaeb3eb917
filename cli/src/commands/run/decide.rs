//! What `tritmark run` does with the run it finds in its folder. Nothing is done here.

use tritmark_proto::{job::RunId, wire};

use crate::{
    client::run_id,
    exit::{Fault, Outcome},
};

/// What was typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Intent {
    /// `--resume`.
    pub(super) resume: bool,
    /// `--fresh`.
    pub(super) fresh: bool,
}

/// The newest run of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownRun {
    /// Its id.
    pub(super) id: RunId,
    /// Whether nothing of it is left to measure.
    pub(super) has_ended: bool,
    /// Whether its report lies in the folder.
    pub(super) is_reported: bool,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Begin a new run, after giving up the one named.
    Begin {
        /// The open run that would go on beside it.
        cancel: Option<RunId>,
    },
    /// Go on with a run, be it only to write its report.
    Continue(RunId),
    /// Nothing: it has ended and its report is there.
    Done(RunId),
}

impl KnownRun {
    /// Returns the newest of `runs`; `reported` is the run whose report lies in the folder.
    pub(super) fn newest(runs: &[wire::RunSummary], reported: Option<&str>) -> Option<Self> {
        let newest = runs
            .iter()
            .filter_map(|run| Some((run_id(&run.run_id).ok()?, run)))
            .max_by_key(|(id, run)| (run.submitted_unix_ns, *id));
        newest.map(|(id, run)| Self {
            id,
            has_ended: run.ended_unix_ns.is_some(),
            is_reported: reported == Some(run.run_id.as_str()),
        })
    }
}

/// Decides; `same` is the newest run of this very plan.
pub(super) fn decide(
    intent: Intent,
    known: Option<KnownRun>,
    same: Option<RunId>,
) -> Outcome<Decision> {
    let Some(known) = known else {
        // Killed before the plan was stored: there is nothing to go on with, and nothing is lost.
        return Ok(Decision::Begin { cancel: None });
    };
    let is_whole = known.has_ended && known.is_reported;
    if intent.fresh || (is_whole && !intent.resume) {
        let cancel = (!known.has_ended).then_some(known.id);
        return Ok(Decision::Begin { cancel });
    }
    if !intent.resume {
        return Err(Fault::usage(format!(
            "run {} of this plan was interrupted: --resume goes on with it, --fresh begins anew",
            known.id
        )));
    }
    if same != Some(known.id) {
        return Err(Fault::usage(format!(
            "the plan has changed since run {} was interrupted: put it back, or begin anew with \
             --fresh",
            known.id
        )));
    }
    if is_whole {
        Ok(Decision::Done(known.id))
    } else {
        Ok(Decision::Continue(known.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    const RESUME: Intent = Intent {
        resume: true,
        fresh: false,
    };
    const FRESH: Intent = Intent {
        resume: false,
        fresh: true,
    };
    const PLAIN: Intent = Intent {
        resume: false,
        fresh: false,
    };

    fn known(id: RunId, has_ended: bool, is_reported: bool) -> KnownRun {
        KnownRun {
            id,
            has_ended,
            is_reported,
        }
    }

    #[test]
    fn a_folder_without_a_run_begins_one_even_when_told_to_resume() {
        for intent in [PLAIN, RESUME, FRESH] {
            let decision = decide(intent, None, None).expect("it is no error");
            assert_eq!(decision, Decision::Begin { cancel: None });
        }
    }

    #[test]
    fn an_interrupted_run_is_neither_repeated_nor_resumed_unasked() {
        let id = RunId::generate();
        for (has_ended, is_reported) in [(false, false), (true, false)] {
            let run = Some(known(id, has_ended, is_reported));
            let fault = decide(PLAIN, run, Some(id)).expect_err("it must be asked for");
            assert_eq!(fault.exit, Exit::Usage);
            assert!(fault.chain().contains("--resume"), "{fault:?}");
            assert!(fault.chain().contains("--fresh"), "{fault:?}");
            let resumed = decide(RESUME, run, Some(id)).expect("it was asked for");
            assert_eq!(resumed, Decision::Continue(id));
        }
    }

    #[test]
    fn beginning_anew_gives_up_the_open_run() {
        let id = RunId::generate();
        let open =
            decide(FRESH, Some(known(id, false, false)), Some(id)).expect("it was asked for");
        assert_eq!(open, Decision::Begin { cancel: Some(id) });
        let ended = decide(FRESH, Some(known(id, true, true)), Some(id)).expect("it was asked for");
        assert_eq!(ended, Decision::Begin { cancel: None });
    }

    #[test]
    fn a_changed_plan_cannot_be_resumed() {
        let id = RunId::generate();
        for same in [None, Some(RunId::generate())] {
            let fault =
                decide(RESUME, Some(known(id, false, false)), same).expect_err("it changed");
            assert_eq!(fault.exit, Exit::Usage);
        }
    }

    #[test]
    fn a_finished_run_is_measured_again_unless_told_to_resume() {
        let id = RunId::generate();
        let run = Some(known(id, true, true));
        let again = decide(PLAIN, run, Some(id)).expect("it is no error");
        assert_eq!(again, Decision::Begin { cancel: None });
        let done = decide(RESUME, run, Some(id)).expect("it is no error");
        assert_eq!(done, Decision::Done(id));
    }

    #[test]
    fn the_newest_run_is_the_last_submitted() {
        let ids: Vec<_> = (0..3).map(|_| RunId::generate()).collect();
        let runs: Vec<_> = [(1, 5), (0, 9), (2, 7)]
            .map(|(id, at): (usize, i64)| wire::RunSummary {
                run_id: ids[id].to_string(),
                submitted_unix_ns: at,
                ..Default::default()
            })
            .into();
        let newest = KnownRun::newest(&runs, None).expect("there are runs");
        assert_eq!(newest.id, ids[0]);
        assert!(KnownRun::newest(&[], None).is_none());
    }
}
