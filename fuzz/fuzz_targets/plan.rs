//! A plan of any text: read and expanded, or refused on one of its lines.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

// The plan's own modules rather than the crate, whose store and bundles weigh far more.
#[path = "../../coordinator/src"]
#[allow(dead_code, unused_imports)]
mod coordinator {
    pub mod plan;
}

use coordinator::plan::{CheckContext, MAX_JOBS, Plan};

fuzz_target!(|text: &str| {
    match Plan::parse(text, "fuzz", Path::new("/nowhere")) {
        Ok(plan) => {
            plan.check(&CheckContext::default())
                .expect("nothing is checked against");
            let run = "018f6b1e-0000-7000-8000-000000000001"
                .parse()
                .expect("a run's id");
            let jobs = plan.jobs(run);
            assert!((1..=MAX_JOBS).contains(&(jobs.len() as u64)));
        }
        Err(error) => assert!((1..=text.lines().count() + 1).contains(&error.line)),
    }
});
