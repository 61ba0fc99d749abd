# void *tapio_memmove(void *to (rdi), const void *from (rsi), size_t bytes (rdx))
#
# Copies `bytes` bytes; the two may overlap. Returns `to`. Uses SSE2 only, which each x86-64 has.
#
# Up to 128 bytes: everything is loaded before the first store, which is right for each overlap. Two
# loads, one from the begin and one from the end, cover each length between one and two of their
# size.
    .section .text.tapio_memmove, "ax", @progbits
    .globl tapio_memmove
    .type tapio_memmove, @function
    .p2align 6
tapio_memmove:
    .cfi_startproc
    mov rax, rdi
    cmp rdx, 16
    jb 20f
    cmp rdx, 32
    ja 30f
    # 16 to 32 bytes.
    movups xmm0, [rsi]
    movups xmm1, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + rdx - 16], xmm1
    ret

20: # 8 to 15 bytes.
    cmp edx, 8
    jb 21f
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
21: # 4 to 7 bytes.
    cmp edx, 4
    jb 22f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
22: # 0 to 3 bytes.
    test edx, edx
    je 24f
    movzx ecx, byte ptr [rsi]
    cmp edx, 1
    je 23f
    movzx r8d, word ptr [rsi + rdx - 2]
    mov [rdi + rdx - 2], r8w
23: mov [rdi], cl
24: ret

30: # 33 to 128 bytes.
    cmp rdx, 128
    ja 40f
    movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + rdx - 32]
    movups xmm3, [rsi + rdx - 16]
    cmp rdx, 64
    jbe 31f
    movups xmm4, [rsi + 32]
    movups xmm5, [rsi + 48]
    movups xmm6, [rsi + rdx - 64]
    movups xmm7, [rsi + rdx - 48]
    movups [rdi + 32], xmm4
    movups [rdi + 48], xmm5
    movups [rdi + rdx - 64], xmm6
    movups [rdi + rdx - 48], xmm7
31: movups [rdi], xmm0
    movups [rdi + 16], xmm1
    movups [rdi + rdx - 32], xmm2
    movups [rdi + rdx - 16], xmm3
    ret

40: # More: 64 bytes at a time, to aligned addresses. r8: the end of `to`.
    lea r8, [rdi + rdx]
    mov rcx, rdi
    sub rcx, rsi
    # Unsigned: `to` begins within `from`, so the end has to be copied first.
    cmp rcx, rdx
    jb 50f

    # Forwards. The last 64 bytes and the first 16 are loaded before the first store, and stored at
    # last: the loop begins at an aligned address and ends with a whole block.
    movups xmm4, [rsi + rdx - 64]
    movups xmm5, [rsi + rdx - 48]
    movups xmm6, [rsi + rdx - 32]
    movups xmm7, [rsi + rdx - 16]
    movups xmm8, [rsi]
    lea rdx, [rdi + 16]
    and rdx, -16
    # rsi + rdx is the address to read.
    sub rsi, rdi
    sub r8, 64
    .p2align 4
41: movups xmm0, [rsi + rdx]
    movups xmm1, [rsi + rdx + 16]
    movups xmm2, [rsi + rdx + 32]
    movups xmm3, [rsi + rdx + 48]
    movaps [rdx], xmm0
    movaps [rdx + 16], xmm1
    movaps [rdx + 32], xmm2
    movaps [rdx + 48], xmm3
    add rdx, 64
    cmp rdx, r8
    jb 41b
    movups [r8], xmm4
    movups [r8 + 16], xmm5
    movups [r8 + 32], xmm6
    movups [r8 + 48], xmm7
    movups [rdi], xmm8
    ret

50: # Backwards, in the same way: the first 64 bytes and the last 16 are stored at last.
    movups xmm4, [rsi]
    movups xmm5, [rsi + 16]
    movups xmm6, [rsi + 32]
    movups xmm7, [rsi + 48]
    movups xmm8, [rsi + rdx - 16]
    lea rdx, [r8 - 1]
    and rdx, -16
    sub rsi, rdi
    lea rcx, [rdi + 64]
    .p2align 4
51: movups xmm0, [rsi + rdx - 16]
    movups xmm1, [rsi + rdx - 32]
    movups xmm2, [rsi + rdx - 48]
    movups xmm3, [rsi + rdx - 64]
    movaps [rdx - 16], xmm0
    movaps [rdx - 32], xmm1
    movaps [rdx - 48], xmm2
    movaps [rdx - 64], xmm3
    sub rdx, 64
    cmp rdx, rcx
    ja 51b
    movups [rdi], xmm4
    movups [rdi + 16], xmm5
    movups [rdi + 32], xmm6
    movups [rdi + 48], xmm7
    movups [r8 - 16], xmm8
    ret
    .cfi_endproc
    .size tapio_memmove, . - tapio_memmove
    .text
