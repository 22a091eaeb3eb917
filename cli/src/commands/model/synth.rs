//! `tritmark model synth`: a model of a published shape with random weights.

use std::path::Path;

use tritmark_engine::synth::{self, Format};

use crate::{
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

use super::bar_of_bytes;

pub(super) fn exec(shape: &str, format: &str, seed: u64, output: &Path) -> Outcome {
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
    let bar = bar_of_bytes();
    synth::write(known, format, seed, output, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
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
