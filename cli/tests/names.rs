//! The coordinator links neither engine nor suites; the names it accepts must be theirs.

use std::collections::BTreeSet;

use tritmark_coordinator::plan::names;
use tritmark_engine::{
    kernels::{self, KernelChoice},
    synth,
};
use tritmark_suites::accuracy::Task;

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
    let of_plans: BTreeSet<_> = names::TASKS.iter().map(|(task, _)| *task).collect();
    assert_eq!(of_plans, BTreeSet::from(Task::NAMES));
    for (name, split) in names::TASKS {
        let task = Task::named(name).expect("the suites know it");
        assert_eq!(task.items.first(), Some(&split), "{name}");
    }
}

#[test]
fn shapes_and_formats_are_those_of_the_engine() {
    let of_engine: BTreeSet<_> = synth::shapes().iter().map(|shape| shape.name).collect();
    assert_eq!(BTreeSet::from(names::SHAPES), of_engine);
    let of_engine: BTreeSet<_> = synth::Format::ALL.iter().map(|f| f.name()).collect();
    assert_eq!(BTreeSet::from(names::FORMATS), of_engine);
}
