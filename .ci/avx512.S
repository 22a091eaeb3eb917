/*
 * What a PC's firmware and boot loader do to start a 64-bit Linux, in two pieces for `.ci/avx512`.
 *
 * `.rom` takes the place of the BIOS: from the reset vector to the kernel's 64-bit entry in some
 * 30 thousand instructions, where a BIOS, a boot loader and the unpacking of the kernel take 800 million.
 * `.ram` is what the kernel is handed (Documentation/arch/x86/boot.rst, "64-bit boot protocol"):
 * its parameters, tables that map the first 4 GiB one to one, and its command line.
 *
 * The assembler is given ENTRY, INITRD, INITRD_SIZE, MEMORY (bytes) and COMMAND_LINE (a string).
 */
        .set    PARAMS, 0x100000        /* where `.ram` is loaded */
        .set    TABLES, PARAMS + 0x1000
        .set    COMMAND, PARAMS + 0x3000

        .section .rom, "ax"
        .code16
rom:    cli
        lgdtl   %cs:gdt_pointer - rom
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0x20, %eax             /* CR4.PAE */
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       /* EFER.LME */
        movl    $0x100, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0x80000001, %eax       /* CR0.PG and CR0.PE: 64 bits from here on */
        movl    %eax, %cr0
        ljmpl   $0x10, $0xf0000 + (long_mode - rom)

        .code64
long_mode:
        movl    $0x18, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        /*
         * Bochs gives guest memory out in blocks, in the order they are first touched, and loads
         * an image as if they lay side by side: touched in this order, they do.
         */
        movl    $PARAMS, %ebx
touch:  movb    (%rbx), %al
        addl    $0x10000, %ebx
        cmpl    $MEMORY, %ebx
        jb      touch

        movl    $PARAMS, %esi
        movl    $ENTRY, %eax
        jmp     *%rax

        .balign 8
gdt:    .quad   0, 0
        .quad   0x00af9b000000ffff      /* 0x10: 64-bit code */
        .quad   0x00cf93000000ffff      /* 0x18: data */
gdt_pointer:
        .word   31
        .long   0xf0000 + (gdt - rom)

        .org    0xfff0                  /* where an x86 starts */
        .code16
        ljmp    $0xf000, $0
        .org    0x10000

        .section .ram, "a"
        .org    0x1e8
        .byte   2                       /* entries of the memory map */
        .org    0x1fe
        .word   0xaa55
        .org    0x202
        .ascii  "HdrS"
        .word   0x20f                   /* version of the protocol */
        .org    0x210
        .byte   0xff, 1                 /* an unknown loader; the kernel lies high */
        .org    0x218
        .long   INITRD, INITRD_SIZE
        .org    0x228
        .long   COMMAND
        .org    0x238
        .long   2047                    /* longest command line */
        .org    0x2d0                   /* memory map: address, size, 1 = free */
        .quad   0, 0x9f000
        .long   1
        .quad   PARAMS, MEMORY - PARAMS
        .long   1
        .org    TABLES - PARAMS
        .quad   TABLES + 0x1003
        .org    TABLES - PARAMS + 0x1000
        .quad   0x83, 0x40000083, 0x80000083, 0xc0000083
        .org    COMMAND - PARAMS
        .asciz  COMMAND_LINE
