//! Whether a program runs by itself: 64-bit ELF of the right machine, without a loader to start it
//! and without libraries it needs. System V ABI, chapters 4 and 5.

/// Why a program is not fit for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotStatic {
    #[error("it is no 64-bit little-endian ELF program")]
    NoElf,
    #[error("it is for another machine (e_machine {0})")]
    Machine(u16),
    #[error("it is linked dynamically: it asks for a loader")]
    Interpreter,
    #[error("it is linked dynamically: it needs libraries")]
    Needed,
}

/// `PT_DYNAMIC` and `PT_INTERP` of a program header's `p_type`.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
/// `DT_NEEDED` of an entry of the dynamic section.
const DT_NEEDED: u64 = 1;

/// Returns the ELF number of a target's machine; `None` of one that is not known here.
pub(crate) fn machine_of(target: &str) -> Option<u16> {
    match target.split('-').next() {
        Some("x86_64") => Some(62),
        Some("aarch64") => Some(183),
        _ => None,
    }
}

/// Checks a program's bytes.
pub(crate) fn check(
    program: &[u8],
    machine: Option<u16>,
    allow_dynamic: bool,
) -> Result<(), NotStatic> {
    let is_elf = program.starts_with(b"\x7fELF\x02\x01");
    let found = u16_at(program, 18)
        .filter(|_| is_elf)
        .ok_or(NotStatic::NoElf)?;
    if machine.is_some_and(|machine| machine != found) {
        return Err(NotStatic::Machine(found));
    }
    if allow_dynamic {
        return Ok(());
    }
    let headers = || {
        let at = usize::try_from(u64_at(program, 32)?).ok()?;
        let size = usize::from(u16_at(program, 54)?);
        let n = usize::from(u16_at(program, 56)?);
        (0..n)
            .map(|i| {
                let at = at.checked_add(i * size)?;
                let kind = u32_at(program, at)?;
                let offset = usize::try_from(u64_at(program, at.checked_add(8)?)?).ok()?;
                let n_bytes = usize::try_from(u64_at(program, at.checked_add(32)?)?).ok()?;
                Some((kind, offset, n_bytes))
            })
            .collect::<Option<Vec<_>>>()
    };
    for (kind, offset, n_bytes) in headers().ok_or(NotStatic::NoElf)? {
        if kind == PT_INTERP {
            return Err(NotStatic::Interpreter);
        }
        // A static program that may lie anywhere has a dynamic section too, which needs nothing.
        if kind == PT_DYNAMIC {
            let end = offset.checked_add(n_bytes).ok_or(NotStatic::NoElf)?;
            let section = program.get(offset..end).ok_or(NotStatic::NoElf)?;
            let mut tags = section
                .chunks_exact(16)
                .filter_map(|entry| u64_at(entry, 0));
            if tags.any(|tag| tag == DT_NEEDED) {
                return Err(NotStatic::Needed);
            }
        }
    }
    Ok(())
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with these program headers, whose contents stand behind them.
    fn program(headers: &[(u32, &[u64])]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&62_u16.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        let mut at = 64 + 56 * headers.len() as u64;
        for (kind, contents) in headers {
            let n_bytes = contents.len() as u64 * 8;
            let mut header = vec![0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&at.to_le_bytes());
            header[32..40].copy_from_slice(&n_bytes.to_le_bytes());
            bytes.extend(header);
            at += n_bytes;
        }
        for (_, contents) in headers {
            bytes.extend(contents.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn a_program_that_needs_nothing_is_static() {
        let load = (1, &[0_u64; 4][..]);
        // DT_SYMTAB and DT_NULL: a static program that may lie anywhere.
        let dynamic = (PT_DYNAMIC, &[6, 0x1000, 0, 0][..]);
        assert_eq!(check(&program(&[load]), Some(62), false), Ok(()));
        assert_eq!(check(&program(&[load, dynamic]), Some(62), false), Ok(()));
        let needing = (PT_DYNAMIC, &[6, 0x1000, DT_NEEDED, 5, 0, 0][..]);
        let loader = (PT_INTERP, &[0][..]);
        for (headers, refusal) in [
            (vec![load, needing], NotStatic::Needed),
            (vec![loader, load], NotStatic::Interpreter),
        ] {
            let program = program(&headers);
            assert_eq!(check(&program, Some(62), false), Err(refusal));
            assert_eq!(check(&program, Some(62), true), Ok(()));
        }
        let other = check(&program(&[load]), Some(183), true);
        assert_eq!(other, Err(NotStatic::Machine(62)));
    }

    #[test]
    fn what_is_no_program_is_refused_without_a_panic() {
        let whole = program(&[(1, &[0; 4]), (PT_DYNAMIC, &[6, 1, 0, 0])]);
        for n in 0..whole.len() {
            // Cut anywhere before the end of its dynamic section, it is no program.
            assert!(check(&whole[..n], Some(62), false).is_err(), "{n} bytes");
        }
        let mut wild = whole;
        wild[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(check(&wild, Some(62), false), Err(NotStatic::NoElf));
        assert_eq!(check(b"#!/bin/sh", None, true), Err(NotStatic::NoElf));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn this_test_is_linked_dynamically() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let crt_static = cfg!(target_feature = "crt-static");
        assert_eq!(check(&this, None, false).is_ok(), crt_static);
    }
}
