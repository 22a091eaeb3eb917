//! The coordinator links neither engine nor suites; the names it accepts must be theirs.

use std::collections::BTreeSet;

use tritmark_coordinator::plan::names;
use tritmark_engine::{
    kernels::{self, KernelChoice},
    synth,
};
use tritmark_suites::accuracy::{Task, definition::Kind};

#[test]
fn every_kernel_a_plan_may_name_is_one_of_the_engines() {
    for (full, short) in names::KERNELS {
        let by_full: KernelChoice = full.parse().expect("the engine knows it");
        let by_short: KernelChoice = short.parse().expect("the engine knows it");
        assert_eq!(by_full, by_short);
        assert_eq!(by_full.to_string(), full);
    }
    let auto: KernelChoice = names::AUTO_KERNEL.parse().expect("the engine knows it");
    assert_eq!(auto, KernelChoice::Auto);
}

#[test]
fn every_kernel_of_this_cpu_may_be_named_in_a_plan() {
    for kernel in kernels::names() {
        assert_eq!(names::kernel(kernel), Some(kernel));
    }
}

#[test]
fn tasks_are_those_of_the_suites() {
    assert_eq!(names::TASKS.map(|task| task.name).to_vec(), Task::names());
    for known in names::TASKS {
        let task = Task::named(known.name).expect("the suites know it");
        let definition = &task.definition;
        let (folder, file) = known.data;
        assert_eq!(definition.folder(), folder, "{}", known.name);
        assert_eq!(
            definition.data.items.first().map(String::as_str),
            Some(file),
            "{}",
            known.name
        );
        assert_eq!(
            known.ending,
            definition.data.format.ending(),
            "{}",
            known.name
        );
        assert_eq!(task.num_fewshot(None), known.num_fewshot, "{}", known.name);
        let generates = matches!(definition.kind, Kind::GenerateUntil | Kind::Program);
        assert_eq!(generates, known.generates, "{}", known.name);
        let is_program = definition.kind == Kind::Program;
        assert_eq!(is_program, known.is_program, "{}", known.name);
        // A fixed number of examples is the paper's as well.
        if definition.fewshot.fixed {
            assert!(known.bitnet_2b4t.is_none_or(|n| n == known.num_fewshot));
        }
    }
}

#[test]
fn shapes_and_formats_are_those_of_the_engine() {
    let of_engine: BTreeSet<_> = synth::shapes().iter().map(|shape| shape.name).collect();
    assert_eq!(BTreeSet::from(names::SHAPES), of_engine);
    let of_engine: BTreeSet<_> = synth::Format::ALL.iter().map(|f| f.name()).collect();
    assert_eq!(BTreeSet::from(names::FORMATS), of_engine);
}
