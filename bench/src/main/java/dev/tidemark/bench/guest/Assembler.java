package dev.tidemark.bench.guest;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Just enough of an x86-64 assembler for the guest's program (Intel SDM, volume 2): 64-bit
 * operations on registers, on memory at register + index * 8 + offset, jumps, and two more.
 */
final class Assembler {
  /** The registers in the order of their numbers. */
  enum Reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15
  }

  /** Two-operand operations: opcode with memory or register as destination, and the one for imm. */
  enum Op {
    ADD(0x01, 0),
    OR(0x09, 1),
    AND(0x21, 4),
    SUB(0x29, 5),
    XOR(0x31, 6),
    CMP(0x39, 7),
    MOV(0x89, -1);

    final int opcode;
    final int immediate;

    Op(int opcode, int immediate) {
      this.opcode = opcode;
      this.immediate = immediate;
    }
  }

  /** One-operand operations: opcode and its extension. */
  enum Unary {
    NOT(0xf7, 2),
    NEG(0xf7, 3),
    INC(0xff, 0),
    DEC(0xff, 1);

    final int opcode;
    final int extension;

    Unary(int opcode, int extension) {
      this.opcode = opcode;
      this.extension = extension;
    }
  }

  /** Conditions of jumps, by their number; B and A compare without sign. */
  enum If {
    B(2),
    E(4),
    NE(5),
    A(7);

    final int number;

    If(int number) {
      this.number = number;
    }
  }

  /** A place in the code, jumped to before or after it is known. */
  static final class Label {
    private int position = -1;
    private final List<Integer> uses = new ArrayList<>();
  }

  private final ByteBuffer code = ByteBuffer.allocate(4096).order(ByteOrder.LITTLE_ENDIAN);

  /** REX prefix with W set; reg, index and base give the fourth bit of their numbers. */
  private void rex(int reg, int index, int base) {
    code.put((byte) (0x48 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3));
  }

  private void registers(int opcode, int reg, Reg rm) {
    rex(reg, 0, rm.ordinal());
    code.put((byte) opcode).put((byte) (0xc0 | (reg & 7) << 3 | rm.ordinal() & 7));
  }

  private void memory(int opcode, Reg reg, Reg base, Reg index, long offset) {
    int r = reg.ordinal();
    int b = base.ordinal();
    if (index == null && (b & 7) != 4) {
      rex(r, 0, b);
      code.put((byte) opcode).put((byte) (0x80 | (r & 7) << 3 | b & 7));
    } else {
      // Index 4 (RSP) stands for none; a base of RSP or R12 can be given only in this form.
      int i = index == null ? 4 : index.ordinal();
      rex(r, i, b);
      code.put((byte) opcode).put((byte) (0x84 | (r & 7) << 3));
      code.put((byte) (0xc0 | (i & 7) << 3 | b & 7));
    }
    code.putInt(Math.toIntExact(offset));
  }

  /** {@code op to, from}. */
  void op(Op op, Reg to, Reg from) {
    registers(op.opcode, from.ordinal(), to);
  }

  /** {@code op to, immediate}; not for MOV. */
  void op(Op op, Reg to, int immediate) {
    registers(0x81, op.immediate, to);
    code.putInt(immediate);
  }

  /** {@code op [base + offset], from}: MOV stores, CMP compares memory with the register. */
  void toMemory(Op op, Reg base, long offset, Reg from) {
    memory(op.opcode, from, base, null, offset);
  }

  /** {@code op [base + index * 8 + offset], from}. */
  void toMemory(Op op, Reg base, Reg index, long offset, Reg from) {
    memory(op.opcode, from, base, index, offset);
  }

  /** {@code mov to, [base + offset]}. */
  void load(Reg to, Reg base, long offset) {
    memory(0x8b, to, base, null, offset);
  }

  void unary(Unary op, Reg reg) {
    registers(op.opcode, op.extension, reg);
  }

  void shiftLeft(Reg reg, int bits) {
    registers(0xc1, 4, reg);
    code.put((byte) bits);
  }

  void shiftRight(Reg reg, int bits) {
    registers(0xc1, 5, reg);
    code.put((byte) bits);
  }

  /** {@code mov reg, immediate} of 32 bits, sign-extended. */
  void set(Reg reg, int immediate) {
    registers(0xc7, 0, reg);
    code.putInt(immediate);
  }

  /** {@code test reg, immediate}: jump E if none of the bits is set. */
  void test(Reg reg, int immediate) {
    registers(0xf7, 0, reg);
    code.putInt(immediate);
  }

  /** {@code rep stosq}: stores RAX to RCX words from RDI on. */
  void repeatStore() {
    code.put((byte) 0xf3).put((byte) 0x48).put((byte) 0xab);
  }

  /** {@code out port, al}. */
  void out(int port) {
    code.put((byte) 0xe6).put((byte) port);
  }

  /** Instructions that nothing here has a name for. */
  void raw(int... bytes) {
    for (int one : bytes) {
      code.put((byte) one);
    }
  }

  /** Four bytes of such an instruction: an address, an immediate. */
  void raw32(long value) {
    code.putInt((int) value);
  }

  void jump(Label to) {
    code.put((byte) 0xe9);
    use(to);
  }

  void jump(If condition, Label to) {
    code.put((byte) 0x0f).put((byte) (0x80 | condition.number));
    use(to);
  }

  private void use(Label label) {
    label.uses.add(code.position());
    code.putInt(0);
    patch(label);
  }

  /** The label is here. */
  void here(Label label) {
    label.position = code.position();
    patch(label);
  }

  private void patch(Label label) {
    if (label.position < 0) {
      return;
    }
    for (int use : label.uses) {
      code.putInt(use, label.position - (use + Integer.BYTES));
    }
    label.uses.clear();
  }

  byte[] bytes() {
    return Arrays.copyOf(code.array(), code.position());
  }
}
