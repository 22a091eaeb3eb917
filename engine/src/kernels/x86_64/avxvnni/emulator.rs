//! A stand-in for the one instruction, where the CPU lacks it: Linux tells of what a CPU refuses
//! (SIGILL) and saves the registers, on which `vpdpbusd` is executed before the program goes on
//! behind it.
//!
//! It decodes VEX.128 and VEX.256.66.0F38.W0 50 /r with any operand (Intel SDM, volume 2, "VPDPBUSD"),
//! and whatever else is refused ends the process as ever. Registers longer than 256 bits, whose upper
//! parts the instruction clears, are left alone: nothing that is compiled for AVX2 reads them.

use std::{
    arch::x86_64::__cpuid_count,
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ops::Range,
    ptr, slice,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use decode::{Base, Instruction, Operand, decode};

mod decode;
mod tests;

/// Where the upper halves of `ymm` registers lie in what is saved.
static UPPER_HALVES: AtomicUsize = AtomicUsize::new(0);

/// Where Linux puts the address of the next instruction.
const NEXT: usize = libc::REG_RIP as usize;

/// Where it puts the general registers, by the numbers that instructions give them.
const ORDER: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Has `vpdpbusd` emulated in this process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Leaf 13, part 2: the state of AVX.
        let offset = __cpuid_count(13, 2).ebx;
        UPPER_HALVES.store(offset as usize, Ordering::Relaxed);
        // SAFETY: the structure is one of integers, for which zeros are values.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler is one of three arguments, as the flag says, and it neither allocates
        // nor takes a lock.
        let status = unsafe { libc::sigaction(libc::SIGILL, &raw const action, ptr::null_mut()) };
        assert_eq!(status, 0, "SIGILL can be handled");
    });
}

extern "C" fn handle(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the context of the thread that was interrupted.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // As many as follow one another: a signal takes longer than its instruction by far.
    let executed = Saved::of(context).is_some_and(|mut saved| {
        let mut executed = false;
        while let Some(instruction) = saved.next() {
            saved.execute(&instruction);
            executed = true;
        }
        executed
    });
    if !executed {
        // What was refused is tried again, and refused for good.
        // SAFETY: to set the default is what this function is for.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What Linux saves of the extended state: the XSAVE area, and what it says of it (`struct
/// _fpx_sw_bytes`).
mod area {
    /// The lower halves of registers.
    pub(super) const LOWER: usize = 160;
    /// A number that says that there is more than the legacy part.
    pub(super) const MAGIC: usize = 464;
    /// The length of the legacy part, behind which it is said what is in use.
    pub(super) const LEGACY: usize = 512;
}

/// The registers of a thread that was interrupted.
struct Saved<'a> {
    general: &'a mut [i64; 23],
    state: &'a mut [u8],
}

impl<'a> Saved<'a> {
    /// Returns the registers, `None` where the state of AVX was not saved.
    fn of(context: &'a mut libc::ucontext_t) -> Option<Self> {
        const SSE_AND_AVX: u8 = 0b110;
        let start = context.uc_mcontext.fpregs.cast::<u8>();
        // SAFETY: the legacy part is always there.
        let legacy = unsafe { slice::from_raw_parts(start, area::LEGACY) };
        if legacy[area::MAGIC..][..4] != 0x4650_5853_u32.to_le_bytes() {
            return None;
        }
        let upper = UPPER_HALVES.load(Ordering::Relaxed);
        // SAFETY: the number says that there is more, and the CPU has AVX: its state is where CPUID
        // says, 16 halves of registers.
        let state = unsafe { slice::from_raw_parts_mut(start, upper + 16 * 16) };
        // What is not in use is zero, whatever the area holds.
        for (bit, registers) in [(0b010, area::LOWER), (0b100, upper)] {
            if state[area::LEGACY] & bit == 0 {
                state[registers..][..16 * 16].fill(0);
            }
        }
        state[area::LEGACY] |= SSE_AND_AVX;
        Some(Self {
            general: &mut context.uc_mcontext.gregs,
            state,
        })
    }

    /// Decodes the instruction that is to be executed next.
    fn next(&self) -> Option<Instruction> {
        let code = self.general[NEXT] as *const u8;
        decode((0..).map(|at| {
            let byte = code.wrapping_add(at);
            // SAFETY: no more is read than an instruction has, which the CPU has read too.
            unsafe { byte.read() }
        }))
    }

    fn execute(&mut self, instruction: &Instruction) {
        let next = self.general[NEXT] + instruction.bytes;
        let bytes = if instruction.is_wide { 32 } else { 16 };
        let values = match instruction.values {
            Operand::Register(number) => self.vector(number),
            Operand::Memory {
                base,
                index,
                displacement,
            } => {
                let base = match base {
                    Base::None => 0,
                    Base::Next => next,
                    Base::Register(number) => self.address(number),
                };
                let index = index.map_or(0, |(number, shift)| self.address(number) << shift);
                let address = base.wrapping_add(index).wrapping_add(displacement) as *const u8;
                let mut values = [0; 32];
                // SAFETY: the instruction reads as many bytes there.
                unsafe { ptr::copy_nonoverlapping(address, values.as_mut_ptr(), bytes) };
                values
            }
        };
        let mut sums = self.vector(instruction.sums);
        add_products(&mut sums, &self.vector(instruction.codes), &values);
        sums[bytes..].fill(0);
        for (half, sums) in halves(instruction.sums).into_iter().zip(sums.chunks(16)) {
            self.state[half].copy_from_slice(sums);
        }
        self.general[NEXT] = next;
    }

    fn vector(&self, number: usize) -> [u8; 32] {
        let mut vector = [0; 32];
        for (half, bytes) in halves(number).into_iter().zip(vector.chunks_mut(16)) {
            bytes.copy_from_slice(&self.state[half]);
        }
        vector
    }

    /// Returns a general register by the number that instructions give it.
    #[expect(clippy::cast_sign_loss, reason = "an index of C's type")]
    fn address(&self, number: usize) -> i64 {
        self.general[ORDER[number] as usize]
    }
}

/// Where the halves of a register lie in the area.
fn halves(number: usize) -> [Range<usize>; 2] {
    let starts = [area::LOWER, UPPER_HALVES.load(Ordering::Relaxed)];
    starts.map(|start| start + 16 * number..start + 16 * (number + 1))
}

/// `vpdpbusd`: adds to each i32 the products of four unsigned and four signed bytes, and wraps.
fn add_products(sums: &mut [u8; 32], codes: &[u8; 32], values: &[u8; 32]) {
    let pairs = codes.as_chunks::<4>().0.iter().zip(values.as_chunks().0);
    for (sum, (codes, values)) in sums.as_chunks_mut().0.iter_mut().zip(pairs) {
        let values: [u8; 4] = *values;
        let products = codes.iter().zip(values);
        let products = products.map(|(&c, v)| i32::from(c) * i32::from(v.cast_signed()));
        *sum = i32::from_le_bytes(*sum)
            .wrapping_add(products.sum())
            .to_le_bytes();
    }
}
