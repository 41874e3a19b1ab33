# The guest of the accelerator's probe: 64 KB of firmware that does, within milliseconds, what every
# kernel does and what broken virtualisation stumbles over, and then says so on the serial port:
# long mode, a memory full of page tables, cmpxchg16b, xsave and xrstor, the counter and model-specific
# registers, a timer interrupt that wakes it from hlt.
#
#   as --64 probe_guest.S -o p.o && ld -Ttext=0 --oformat binary p.o -o p.bin
#
# p.bin is kept in probe_guest.py; a test assembles it again and compares.

        .set BASE, 0xf0000
        .text
        .code16
start16:
        cli
        cld
        lgdtl %cs:gdt_pointer
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $0x08, $BASE + start32

        .code32
start32:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0x7000, %esp

        # Page tables at 0x10000: 4 GB mapped one to one by pages of 2 MB.
        movl $0x10000, %edi
        xorl %eax, %eax
        movl $0x1800, %ecx
        rep stosl
        movl $0x11003, 0x10000
        movl $0x12003, 0x11000
        movl $0x13003, 0x11008
        movl $0x14003, 0x11010
        movl $0x15003, 0x11018
        movl $0x12000, %edi
        movl $0x83, %eax
        movl $2048, %ecx
1:      movl %eax, (%edi)
        movl $0, 4(%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 1b

        movl %cr4, %eax
        orl $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
        movl %eax, %cr4
        movl $0x10000, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx          # EFER: long mode
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000000, %eax
        andl $0xfffffffb, %eax          # no x87 emulation
        orl $2, %eax
        movl %eax, %cr0
        ljmpl $0x18, $BASE + start64

        .code64
start64:
        movl $0x7000, %esp

        # cmpxchg16b
        movl $0x20000, %edi
        movq $1, (%rdi)
        movq $2, 8(%rdi)
        movl $1, %eax
        movl $2, %edx
        movl $3, %ebx
        movl $4, %ecx
        lock cmpxchg16b (%rdi)
        jnz fail
        cmpq $3, (%rdi)
        jne fail

        # xsave, xrstor, where the CPU has them
        movl $1, %eax
        cpuid
        btl $26, %ecx
        jnc 2f
        movq %cr4, %rax
        orl $0x40000, %eax
        movq %rax, %cr4
        xorl %ecx, %ecx
        xgetbv
        orl $3, %eax
        xsetbv
        movl $0x21000, %edi
        xorl %eax, %eax
        movl $0x400, %ecx
        rep stosl
        pcmpeqb %xmm0, %xmm0
        movl $3, %eax
        xorl %edx, %edx
        movl $0x21000, %edi
        xsave64 (%rdi)
        pxor %xmm0, %xmm0
        movl $3, %eax
        xorl %edx, %edx
        xrstor64 (%rdi)
        movq %xmm0, %rax
        incq %rax
        jnz fail
2:
        # model-specific registers: APIC base, PAT written back, the counter that must go on
        movl $0x1b, %ecx
        rdmsr
        movl $0x277, %ecx
        rdmsr
        wrmsr
        rdtsc
        movl %eax, %esi
        movl $2000, %ecx
3:      pause
        loop 3b
        rdtsc
        cmpl %esi, %eax
        je fail

        # a thousand exits, and as many flushes of the translations
        movl $1000, %r8d
4:      xorl %eax, %eax
        cpuid
        movq %cr3, %rax
        movq %rax, %cr3
        movl $0x22000, %edi
        movl %r8d, (%rdi)
        cmpl %r8d, (%rdi)
        jne fail
        decl %r8d
        jnz 4b

        # a timer interrupt: gate 0x40 of an IDT at 0x23000
        movl $0x23000, %edi
        xorl %eax, %eax
        movl $0x110, %ecx
        rep stosl
        movl $0x23400, %edi
        movl $BASE + tick, %eax
        movw %ax, (%rdi)
        movw $0x18, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        shrl $16, %eax
        movw %ax, 6(%rdi)
        lidt BASE + idt_pointer
        movl $0xfee00000, %ebx
        movl $0x1ff, 0xf0(%rbx)         # enabled
        movl $0x0b, 0x3e0(%rbx)         # every tick counts
        movl $0x40, 0x320(%rbx)         # once, vector 0x40
        movl $100000, 0x380(%rbx)
        movl $0x24000, %esi
        movl $0, (%rsi)
        sti
5:      hlt
        cmpl $0, (%rsi)
        je 5b

        movl $BASE + good, %esi
        jmp say
fail:
        movl $BASE + bad, %esi
say:
        movw $0x3f8, %dx
6:      lodsb
        testb %al, %al
        jz 7f
        outb %al, %dx
        jmp 6b
7:      movw $0xf4, %dx                 # isa-debug-exit
        xorl %eax, %eax
        outb %al, %dx
8:      hlt
        jmp 8b

tick:
        movl $1, (%rsi)
        movl $0, 0xb0(%rbx)
        iretq

good:   .asciz "runtools probe passed\n"
bad:    .asciz "runtools probe failed\n"

        .balign 8
gdt:
        .quad 0
        .quad 0x00cf9a000000ffff        # 0x08: 32-bit code
        .quad 0x00cf92000000ffff        # 0x10: data
        .quad 0x00af9a000000ffff        # 0x18: 64-bit code
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long BASE + gdt
idt_pointer:
        .word 0x40f
        .quad 0x23000

        .org 0xfff0
        .code16
        ljmpw $0xf000, $start16
        .org 0x10000
