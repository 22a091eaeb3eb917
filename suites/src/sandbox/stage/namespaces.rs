//! Namespaces of the monitor and all after it, and the root folder they see.
//!
//! The root is a file system in memory with the interpreter's folders, read-only, three devices and
//! `/tmp`, another file system in memory, of bounded size. There is no `/proc`.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
        mount_remount, unmount,
    },
    process::{getegid, geteuid, pivot_root},
    thread::UnshareFlags,
};

use super::{
    super::{
        request::{Fault, InLayer as _, Request},
        sys,
    },
    SCRATCH, STAGE,
};

/// The user a program is, as far as it can see.
const NOBODY: u32 = 65534;
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// Files and folders in the scratch file system.
const SCRATCH_INODES: u32 = 16384;

/// Moves this process into new namespaces and the new root.
pub(super) fn enter(request: &Request) -> Result<(), Fault> {
    const LAYER: &str = "user namespace";
    let (user, group) = (geteuid(), getegid());
    let stage = env::current_exe().layer("stage", "cannot find this program")?;
    sys::unshare(UnshareFlags::NEWUSER).layer(LAYER, "unshare")?;
    // A user without privileges may map groups only after it has given up changing them.
    fs::write("/proc/self/setgroups", "deny").layer(LAYER, "setgroups")?;
    let map = |id: u32| format!("{NOBODY} {id} 1");
    fs::write("/proc/self/uid_map", map(user.as_raw())).layer(LAYER, "uid_map")?;
    fs::write("/proc/self/gid_map", map(group.as_raw())).layer(LAYER, "gid_map")?;
    for (layer, flags) in [
        ("mount namespace", UnshareFlags::NEWNS),
        ("network namespace", UnshareFlags::NEWNET),
        ("IPC namespace", UnshareFlags::NEWIPC),
        ("host name namespace", UnshareFlags::NEWUTS),
        // Concerns the next process; this one stays where it is.
        ("process namespace", UnshareFlags::NEWPID),
    ] {
        sys::unshare(flags).layer(layer, "unshare")?;
    }
    build_root(request, &stage).layer("mount namespace", "cannot make the new root")?;
    change_root(&request.folder.join("root")).layer("mount namespace", "cannot enter the new root")
}

fn build_root(request: &Request, stage: &Path) -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let root = request.folder.join("root");
    memory(&root, "size=1m,nr_inodes=1k,mode=0755", MountFlags::empty())?;
    for path in request.readable.iter().chain(&request.executable) {
        bind_read_only(path, &root)?;
    }
    bind_read_only(&request.interpreter, &root)?;
    for (link, target) in &request.links {
        // Relative, or it would lead out of what is not the root yet.
        let target = target.strip_prefix("/").map_err(io::Error::other)?;
        symlink(target, inside(&root, link))?;
    }
    for device in DEVICES {
        bind_file(Path::new(device), &inside(&root, Path::new(device)))?;
    }
    let at = inside(&root, Path::new(STAGE));
    bind_file(stage, &at)?;
    read_only(&at)?;

    let scratch = inside(&root, Path::new(SCRATCH));
    fs::create_dir_all(&scratch)?;
    let bytes = request.scratch_bytes;
    memory(
        &scratch,
        &format!("size={bytes},nr_inodes={SCRATCH_INODES},mode=0700"),
        MountFlags::NOEXEC,
    )?;
    for entry in fs::read_dir(request.folder.join("scratch"))? {
        let entry = entry?;
        fs::copy(entry.path(), scratch.join(entry.file_name()))?;
    }
    read_only(&root)
}

fn change_root(root: &Path) -> io::Result<()> {
    env::set_current_dir(root)?;
    // The old root lands on top of the new one and is taken off.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    env::set_current_dir("/")
}

/// Mounts a file system in memory.
fn memory(at: &Path, options: &str, flags: MountFlags) -> io::Result<()> {
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = flags | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", at, "tmpfs", flags, options.as_c_str())?)
}

/// Shows a path in the new root.
fn bind_read_only(source: &Path, root: &Path) -> io::Result<()> {
    let at = inside(root, source);
    if at.exists() {
        // Shown already, with a folder above it.
        return Ok(());
    }
    if source.is_dir() {
        fs::create_dir_all(&at)?;
        mount_bind_recursive(source, &at)?;
    } else {
        bind_file(source, &at)?;
    }
    read_only(&at)
}

fn bind_file(source: &Path, at: &Path) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(at)?.set_permissions(fs::Permissions::from_mode(0o444))?;
    Ok(mount_bind_recursive(source, at)?)
}

fn read_only(at: &Path) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount_remount(at, flags, "")?)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
