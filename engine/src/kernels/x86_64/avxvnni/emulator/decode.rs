//! Decodes `vpdpbusd` in AVX's encoding.

/// `vpdpbusd` with its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Its length.
    pub(super) bytes: i64,
    /// Whether registers are of 256 bits, rather than 128.
    pub(super) is_wide: bool,
    pub(super) sums: usize,
    pub(super) codes: usize,
    pub(super) values: Operand,
}

/// Where the values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Register(usize),
    Memory {
        base: Base,
        /// A register, and by how many bits it is shifted.
        index: Option<(usize, u32)>,
        displacement: i64,
    },
}

/// What an address starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    None,
    /// The address of the next instruction.
    Next,
    Register(usize),
}

/// Decodes an instruction, `None` if it is another; reads no more bytes than it has.
pub(super) fn decode(code: impl Iterator<Item = u8>) -> Option<Instruction> {
    let mut bytes = 0;
    let mut code = code.inspect(|_| bytes += 1);
    let mut next = || code.next().map(usize::from);
    // VEX of three bytes: inverted upper bits of registers and the map 0F38; W0, an inverted
    // register, the length and the prefix 66.
    if next()? != 0xc4 {
        return None;
    }
    let upper = next()?;
    if upper & 0x1f != 0b0_0010 {
        return None;
    }
    let length = next()?;
    if length & 0b1000_0011 != 0b0000_0001 || next()? != 0x50 {
        return None;
    }
    let upper_bit = |bit: usize| (!upper >> bit & 1) << 3;
    let [of_sums, of_index, of_base] = [upper_bit(7), upper_bit(6), upper_bit(5)];
    let modrm = next()?;
    let (mode, register) = (modrm >> 6, modrm & 7);
    let values = if mode == 3 {
        Operand::Register(register | of_base)
    } else {
        let (mut base, mut index) = (Base::Register(register | of_base), None);
        let mut is_absolute = mode == 0 && register == 5;
        if is_absolute {
            base = Base::Next;
        }
        if register == 4 {
            let sib = next()?;
            base = Base::Register(sib & 7 | of_base);
            let number = sib >> 3 & 7 | of_index;
            // The stack pointer cannot be an index: its number says that there is none.
            index = (number != 4).then_some((number, sib as u32 >> 6));
            is_absolute = mode == 0 && sib & 7 == 5;
            if is_absolute {
                base = Base::None;
            }
        }
        let displacement = match mode {
            1 => i64::from(next()? as i8),
            0 if !is_absolute => 0,
            _ => {
                let bytes = [next()? as u8, next()? as u8, next()? as u8, next()? as u8];
                i64::from(i32::from_le_bytes(bytes))
            }
        };
        Operand::Memory {
            base,
            index,
            displacement,
        }
    };
    Some(Instruction {
        bytes,
        is_wide: length & 0b100 != 0,
        sums: modrm >> 3 & 7 | of_sums,
        codes: !length >> 3 & 15,
        values,
    })
}
