//! Names a plan may use, so that a misspelt one is refused before anything runs.
//!
//! The coordinator links neither the engine nor the suites; a test of the `tritmark` binary holds
//! these lists to theirs.

/// Kernels: full name and the short form a person may type.
///
/// Behind those that multiply come those that look up sums in tables.
pub const KERNELS: [(&str, &str); 19] = [
    ("reference", "scalar"),
    ("x86_64-avx2", "avx2"),
    ("x86_64-avxvnni", "avxvnni"),
    ("x86_64-avx512vnni", "avx512vnni"),
    ("aarch64-neon", "neon"),
    ("aarch64-dotprod", "dotprod"),
    ("aarch64-i8mm", "i8mm"),
    ("x86_64-avx2-tl1", "avx2-tl1"),
    ("x86_64-avx2-tl1-int8", "avx2-tl1-int8"),
    ("x86_64-avx2-tl2", "avx2-tl2"),
    ("x86_64-avx2-tl2-int8", "avx2-tl2-int8"),
    ("x86_64-avx2-tmac", "avx2-tmac"),
    ("x86_64-avx2-tmac-int8", "avx2-tmac-int8"),
    ("reference-tl1", "scalar-tl1"),
    ("reference-tl1-int8", "scalar-tl1-int8"),
    ("reference-tl2", "scalar-tl2"),
    ("reference-tl2-int8", "scalar-tl2-int8"),
    ("reference-tmac", "scalar-tmac"),
    ("reference-tmac-int8", "scalar-tmac-int8"),
];

/// The kernel that leaves the choice to the agent's CPU.
pub const AUTO_KERNEL: &str = "auto";

/// An accuracy task, as far as a plan must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskName {
    /// The task.
    pub name: &'static str,
    /// Its data's folder, and the file its items are in, without the ending.
    pub data: (&'static str, &'static str),
    /// Ending of that file, which may also be followed by `.gz`.
    pub ending: &'static str,
    /// Examples where nothing is said.
    pub num_fewshot: u32,
    /// Whether answers are generated rather than chosen or rated.
    pub generates: bool,
    /// Whether answers are programs, which are run against tests.
    pub is_program: bool,
    /// Examples in table 1 of arXiv 2504.12285; `None` where the table has no such row.
    pub bitnet_2b4t: Option<u32>,
}

const fn task(
    name: &'static str,
    split: &'static str,
    num_fewshot: u32,
    bitnet_2b4t: Option<u32>,
) -> TaskName {
    TaskName {
        name,
        data: (name, split),
        ending: ".jsonl",
        num_fewshot,
        generates: false,
        is_program: false,
        bitnet_2b4t,
    }
}

const fn generates(task: TaskName) -> TaskName {
    TaskName {
        generates: true,
        ..task
    }
}

const fn program(task: TaskName) -> TaskName {
    TaskName {
        is_program: true,
        ..generates(task)
    }
}

/// Accuracy tasks, sorted by name.
pub const TASKS: [TaskName; 17] = [
    task("arc_challenge", "test", 0, Some(0)),
    task("arc_easy", "test", 0, Some(0)),
    task("boolq", "validation", 0, Some(0)),
    task("commonsense_qa", "validation", 0, Some(10)),
    generates(task("gsm8k", "test", 5, Some(4))),
    generates(TaskName {
        data: ("gsm8k", "test"),
        ..task("gsm8k_cot", "test", 8, None)
    }),
    task("hellaswag", "validation", 0, Some(0)),
    program(task("humaneval", "test", 0, None)),
    program(task("humaneval_plus", "test", 0, Some(0))),
    generates(task("math500", "test", 0, Some(0))),
    program(task("mbpp_plus", "test", 0, None)),
    task("mmlu", "test", 0, Some(5)),
    task("openbookqa", "test", 0, Some(0)),
    task("piqa", "validation", 0, Some(0)),
    TaskName {
        data: ("truthful_qa", "multiple_choice_validation"),
        // The table says 10; the task is fixed to none beside the six in its prompt.
        ..task("truthfulqa_mc2", "", 0, Some(0))
    },
    TaskName {
        data: ("wikitext2", "wiki.test.raw"),
        ending: "",
        ..task("wikitext2", "", 0, None)
    },
    task("winogrande", "validation", 0, Some(0)),
];

/// Named settings of the accuracy suite.
pub const PRESETS: [&str; 2] = ["bitnet-2b4t", "lm-eval-default"];

/// Shapes of random models: the dummies of arXiv 2410.16144 appendix A, and 2B-4T.
pub const SHAPES: [&str; 13] = [
    "125m", "350m", "700m", "1b", "1.5b", "2b4t", "2.5b", "3.8b", "7b", "13b", "30b", "70b", "100b",
];

/// Formats of the linears of random models: ternary ones, then dense twins; `+q6_k` has a head in
/// `Q6_K`.
pub const FORMATS: [&str; 13] = [
    "i2_s",
    "i2_s+q6_k",
    "tq2_0",
    "tq1_0",
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q4_0",
    "q5_0",
    "q4_k",
    "q5_k",
    "q6_k",
];

/// Architectures of machines.
pub const ARCHS: [&str; 2] = ["x86_64", "aarch64"];

/// CPU features of each architecture that agents tell of, as Rust names them.
pub const ISA: [(&str, &[&str]); 2] = [
    (
        "x86_64",
        &[
            "amx-int8",
            "amx-tile",
            "avx",
            "avx2",
            "avx512bf16",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512f",
            "avx512fp16",
            "avx512vbmi",
            "avx512vbmi2",
            "avx512vl",
            "avx512vnni",
            "avxvnni",
            "avxvnniint8",
            "bmi2",
            "f16c",
            "fma",
            "gfni",
            "popcnt",
            "sse4.1",
            "ssse3",
        ],
    ),
    (
        "aarch64",
        &[
            "bf16", "dotprod", "fp16", "i8mm", "neon", "sme", "sve", "sve2",
        ],
    ),
];

/// Returns the full name of a kernel given by either of its names.
pub fn kernel(name: &str) -> Option<&'static str> {
    if name == AUTO_KERNEL {
        return Some(AUTO_KERNEL);
    }
    KERNELS
        .into_iter()
        .find(|(full, short)| name == *full || name == *short)
        .map(|(full, _)| full)
}

/// Returns the architecture a kernel is made for, `None` where it runs anywhere.
pub fn kernel_arch(full_name: &str) -> Option<&'static str> {
    let (arch, _) = full_name.split_once('-')?;
    ARCHS.into_iter().find(|known| *known == arch)
}

/// Returns what is known of a task.
pub fn task_named(name: &str) -> Option<&'static TaskName> {
    TASKS.iter().find(|task| task.name == name)
}

/// Returns the architecture a CPU feature belongs to.
pub fn isa_arch(feature: &str) -> Option<&'static str> {
    ISA.into_iter()
        .find(|(_, features)| features.contains(&feature))
        .map(|(arch, _)| arch)
}
