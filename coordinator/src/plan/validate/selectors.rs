//! Who may do the jobs of a plan.

use toml::Spanned;
use tritmark_proto::job::Selector;

use super::{
    super::{PlanError, PlanModel, PlanSelector, PlanSuite, document, names},
    Reader,
};

impl Reader<'_> {
    pub(super) fn selectors(
        &self,
        select: &Spanned<document::Selectors>,
        models: &[PlanModel],
        suites: &[PlanSuite],
    ) -> Result<Vec<PlanSelector>, PlanError> {
        let selectors = &select.get_ref().0;
        if selectors.is_empty() {
            return Err(self.error(select, "the list is empty"));
        }
        let mut read: Vec<PlanSelector> = Vec::new();
        for selector in selectors {
            let at = match selector.span() {
                place if place.is_empty() => select.span().start,
                place => place.start,
            };
            let resolved = self.selector(selector.get_ref(), at, models, suites)?;
            if read.iter().any(|other| other.selector == resolved) {
                return Err(self.locator.error(
                    at,
                    "the plan has this selector twice, so every job would run twice",
                ));
            }
            read.push(PlanSelector {
                selector: resolved,
                at,
            });
        }
        Ok(read)
    }

    fn selector(
        &self,
        selector: &document::Selector,
        at: usize,
        models: &[PlanModel],
        suites: &[PlanSuite],
    ) -> Result<Selector, PlanError> {
        let document::Selector {
            arch,
            isa,
            memory_min,
            machine_id,
            labels,
        } = selector;
        let mut arch_at = at;
        let mut only_arch: Option<String> = None;
        if let Some(arch) = arch {
            self.known("architecture", arch, &names::ARCHS)?;
            arch_at = arch.span().start;
            only_arch = Some(arch.get_ref().clone());
        }
        if let Some(isa) = isa {
            self.distinct(isa, isa.get_ref())?;
            for feature in isa.get_ref() {
                let name = feature.get_ref();
                let Some(of) = names::isa_arch(name) else {
                    return Err(self.error(feature, format!("unknown CPU feature `{name}`")));
                };
                match &only_arch {
                    Some(arch) if arch != of => {
                        return Err(self.error(
                            feature,
                            format!("no {arch} machine has `{name}`, it is a feature of {of}"),
                        ));
                    }
                    Some(_) => {}
                    None => only_arch = Some(of.to_owned()),
                }
            }
        }
        if let Some(arch) = &only_arch {
            let mut kernels = models.iter().flat_map(|model| &model.kernels).chain(
                suites
                    .iter()
                    .filter_map(|suite| suite.kernels.as_ref())
                    .flatten(),
            );
            if let Some(kernel) = kernels
                .find(|kernel| names::kernel_arch(kernel).is_some_and(|needed| needed != arch))
            {
                return Err(self.locator.error(
                    arch_at,
                    format!("no {arch} machine runs the kernel `{kernel}` that the plan asks for"),
                ));
            }
        }
        if let Some(id) = machine_id.as_ref().filter(|id| id.get_ref().is_empty()) {
            return Err(self.error(id, "the id is empty"));
        }
        let memory_min_bytes = match memory_min {
            Some(memory) => Some(bytes(memory.get_ref()).ok_or_else(|| {
                self.error(
                    memory,
                    format!(
                        "`{}` is no amount of memory, write e.g. \"8 GiB\"",
                        memory.get_ref()
                    ),
                )
            })?),
            None => None,
        };
        Ok(Selector {
            arch: arch.as_ref().map(|arch| arch.get_ref().clone()),
            isa: isa
                .iter()
                .flat_map(Spanned::get_ref)
                .map(|name| name.get_ref().clone())
                .collect(),
            memory_min_bytes,
            machine_id: machine_id.as_ref().map(|id| id.get_ref().clone()),
            labels: labels.clone().unwrap_or_default(),
        })
    }
}

/// Reads `8 GiB`, `1.5 GB`, `512MiB` or `1024 B`, rounded up to whole bytes.
pub(in super::super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let number = number.trim();
    let is_decimal = !number.is_empty()
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = is_decimal.then(|| number.parse().ok()).flatten()?;
    let factor: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let bytes = (number * factor as f64).ceil();
    // 2^63 is beyond any machine and exact in f64.
    #[expect(clippy::cast_sign_loss, reason = "the range excludes negative values")]
    (0.0..9_223_372_036_854_775_808.0)
        .contains(&bytes)
        .then_some(bytes as u64)
}
