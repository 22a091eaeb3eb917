//! Landlock, and root's way out of being root.

use std::{fs::Metadata, path::Path};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    Scope,
};
use rustix::{
    process::{getegid, geteuid, getuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::super::request::{Fault, InLayer as _, Request};

/// The user that root becomes where no namespace hides the rest of the machine.
pub(in super::super) const NOBODY: u32 = 65534;

/// The newest version this module knows the rights of.
const NEWEST: i32 = 7;

/// Returns the greatest version of landlock of which this kernel has every right, 0 of none.
pub(in super::super) fn supported_landlock() -> i32 {
    (1..=NEWEST)
        .rev()
        .find(|&version| ruleset(ABI::from(version)).is_ok_and(|rules| rules.create().is_ok()))
        .unwrap_or(0)
}

/// Returns a ruleset that forbids everything of a version, or the reason why this kernel cannot.
fn ruleset(abi: ABI) -> Result<Ruleset, landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    let net = AccessNet::from_all(abi);
    if !net.is_empty() {
        rules = rules.handle_access(net)?;
    }
    let scope = Scope::from_all(abi);
    if !scope.is_empty() {
        rules = rules.scope(scope)?;
    }
    Ok(rules)
}

/// Lets this process read the interpreter and what it needs, write its scratch folder, and reach
/// nothing else, by every right that the kernel was found to have.
pub(super) fn landlock(request: &Request, scratch: &Path) -> Result<(), Fault> {
    const LAYER: &str = "landlock";
    let abi = ABI::from(request.landlock);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = AccessFs::ReadFile | AccessFs::Execute;
    let own = AccessFs::from_all(abi)
        & !(AccessFs::Execute
            | AccessFs::MakeBlock
            | AccessFs::MakeChar
            | AccessFs::MakeSock
            | AccessFs::MakeFifo);
    let device = AccessFs::ReadFile | AccessFs::WriteFile;

    let mut grants: Vec<(&Path, BitFlags<AccessFs>)> = vec![(scratch, own)];
    grants.extend(request.readable.iter().map(|path| (path.as_path(), read)));
    grants.extend(request.executable.iter().map(|path| (path.as_path(), run)));
    grants.push((&request.interpreter, run));
    let devices = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
    grants.extend(devices.map(|path| (Path::new(path), device)));

    let mut rules = ruleset(abi)
        .and_then(Ruleset::create)
        .layer(LAYER, "no ruleset")?;
    for (path, rights) in grants {
        let opened = PathFd::new(path).layer(LAYER, "cannot open a path")?;
        let is_dir = path.metadata().as_ref().is_ok_and(Metadata::is_dir);
        let rights = if is_dir {
            rights
        } else {
            rights & AccessFs::from_file(abi)
        };
        rules = rules
            .add_rule(PathBeneath::new(opened, rights))
            .layer(LAYER, &path.display().to_string())?;
    }
    let RestrictionStatus {
        ruleset,
        no_new_privs,
        ..
    } = rules.restrict_self().layer(LAYER, "restrict_self")?;
    if ruleset == RulesetStatus::FullyEnforced && no_new_privs {
        Ok(())
    } else {
        Err(Fault::new(LAYER, format!("{ruleset:?}")))
    }
}

/// Gives up root where it is the machine's.
pub(super) fn become_nobody(request: &Request) -> Result<(), Fault> {
    const LAYER: &str = "ordinary user";
    if request.namespaces || !(geteuid().is_root() || getuid().is_root()) {
        return Ok(());
    }
    let (user, group) = (
        rustix::process::Uid::from_raw(NOBODY),
        rustix::process::Gid::from_raw(NOBODY),
    );
    set_thread_groups(&[]).layer(LAYER, "setgroups")?;
    set_thread_res_gid(group, group, group).layer(LAYER, "setresgid")?;
    set_thread_res_uid(user, user, user).layer(LAYER, "setresuid")?;
    if geteuid() == user && getegid() == group {
        Ok(())
    } else {
        Err(Fault::new(LAYER, "still root"))
    }
}
