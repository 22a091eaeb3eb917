//! `tritmark model synth`: a model of a published shape with random weights.

use std::path::Path;

use tritmark_engine::{
    format::gguf::Gguf,
    mmap,
    synth::{self, Format},
};

use crate::{
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

use super::bar_of_bytes;

pub(super) fn exec(
    shape: &str,
    format: &str,
    seed: u64,
    vocabulary: Option<&Path>,
    output: &Path,
) -> Outcome {
    let known = synth::shape(shape).ok_or_else(|| {
        let names: Vec<_> = synth::shapes().iter().map(|shape| shape.name).collect();
        Fault::usage(format!(
            "no shape is called `{shape}` (there are {})",
            names.join(", ")
        ))
    })?;
    let format = Format::from_name(format).ok_or_else(|| {
        let names = Format::ALL.map(Format::name);
        Fault::usage(format!(
            "no format is called `{format}` (there are {})",
            names.join(", ")
        ))
    })?;
    let vocabulary = vocabulary.map(read).transpose()?;
    let bar = bar_of_bytes();
    let progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    match vocabulary {
        None => synth::write(known, format, seed, output, progress),
        Some(gguf) => {
            synth::write_with_vocabulary(known, format, seed, &gguf.metadata, output, progress)
        }
    }
    .or_exit(Exit::Usage, || format!("cannot make {}", output.display()))?;
    bar.finish_and_clear();
    let size = std::fs::metadata(output)
        .or_exit(Exit::Internal, || {
            format!("cannot read {}", output.display())
        })?
        .len();
    out::line(&format!("{} {}", output.display(), out::bytes(size)))?;
    Ok(Exit::Pass)
}

/// Reads what a GGUF file says of itself.
fn read(path: &Path) -> Result<Gguf, Fault> {
    let cannot = || format!("cannot read {}", path.display());
    let map = mmap::map(path).or_exit(Exit::Usage, cannot)?;
    Gguf::parse(&map).or_exit(Exit::Usage, cannot)
}
