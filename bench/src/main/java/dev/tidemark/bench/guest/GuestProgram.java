package dev.tidemark.bench.guest;

import static dev.tidemark.bench.guest.Assembler.Reg.R10;
import static dev.tidemark.bench.guest.Assembler.Reg.R11;
import static dev.tidemark.bench.guest.Assembler.Reg.R12;
import static dev.tidemark.bench.guest.Assembler.Reg.R13;
import static dev.tidemark.bench.guest.Assembler.Reg.R14;
import static dev.tidemark.bench.guest.Assembler.Reg.R15;
import static dev.tidemark.bench.guest.Assembler.Reg.R8;
import static dev.tidemark.bench.guest.Assembler.Reg.R9;
import static dev.tidemark.bench.guest.Assembler.Reg.RAX;
import static dev.tidemark.bench.guest.Assembler.Reg.RBP;
import static dev.tidemark.bench.guest.Assembler.Reg.RBX;
import static dev.tidemark.bench.guest.Assembler.Reg.RCX;
import static dev.tidemark.bench.guest.Assembler.Reg.RDI;
import static dev.tidemark.bench.guest.Assembler.Reg.RDX;
import static dev.tidemark.bench.guest.Assembler.Reg.RSI;

import dev.tidemark.bench.guest.Assembler.If;
import dev.tidemark.bench.guest.Assembler.Label;
import dev.tidemark.bench.guest.Assembler.Op;
import dev.tidemark.bench.guest.Assembler.Unary;

/**
 * The KVM guest's program: {@link PageFormat} and {@link Mailbox} in machine code. It uses no stack
 * and takes no interrupts; everything it needs to go on is in registers and in its memory.
 *
 * <p>Registers for good: RBX address of the page to visit, RBP generation to write, R8 stride in
 * bytes, R9 end of the test pages, R10 their length in bytes, R12 pages left in the batch, R13
 * newest head seen, R14 start of the mailbox, R15 pages checked. The others are scratch.
 */
final class GuestProgram {
  /** A batch is done. */
  static final int PORT_TICK = 0x10;

  /** The page at RBX does not hold generation RBP - 1. */
  static final int PORT_BAD_PAGE = 0x11;

  /** The mailbox is wrong, with the head in R13 seen before. */
  static final int PORT_BAD_MAILBOX = 0x12;

  private GuestProgram() {}

  static byte[] assemble() {
    Assembler a = new Assembler();
    Label visit = new Label();
    Label badPage = new Label();
    Label badMailbox = new Label();
    Label stopped = new Label();

    a.here(visit);
    visitPage(a, true, badPage);
    a.jump(If.NE, visit);

    a.set(R12, GuestBase.BATCH);
    checkMailbox(a, badMailbox);
    a.out(PORT_TICK);
    a.jump(visit);

    a.here(badPage);
    a.out(PORT_BAD_PAGE);
    a.jump(stopped);
    a.here(badMailbox);
    a.out(PORT_BAD_MAILBOX);
    // Nothing runs it on after an error; if something does, it says so again.
    a.here(stopped);
    a.out(PORT_BAD_PAGE);
    a.jump(stopped);
    return a.bytes();
  }

  /**
   * Checks the page at RBX, writes its next generation, and goes one stride on; jump E afterwards
   * if the batch is over.
   *
   * @param zeroAtFirst whether memory was zero before the first generation; else that one finds
   *     anything
   * @param badPage is jumped to, with RBX and RBP as they are, if the page is wrong
   */
  static void visitPage(Assembler a, boolean zeroAtFirst, Label badPage) {
    Label expectZero = new Label();
    Label write = new Label();
    Label writeZero = new Label();
    Label next = new Label();
    Label samePass = new Label();
    Label inside = new Label();

    // RDX = page number, RAX = the generation that the page must hold.
    a.op(Op.MOV, RDX, RBX);
    a.shiftRight(RDX, GuestMemory.PAGE_SHIFT);
    a.op(Op.MOV, RAX, RBP);
    a.unary(Unary.DEC, RAX);
    // Generation 0 is zero, and so is every page whose number plus generation divides evenly.
    a.jump(If.E, zeroAtFirst ? expectZero : write);
    a.op(Op.MOV, RCX, RDX);
    a.op(Op.ADD, RCX, RAX);
    a.test(RCX, PageFormat.ZERO_EVERY - 1);
    a.jump(If.E, expectZero);
    // RSI = the value; compare first word, middle word of that generation, inverted last word.
    a.op(Op.MOV, RSI, RAX);
    a.shiftLeft(RSI, 32);
    a.op(Op.OR, RSI, RDX);
    a.toMemory(Op.CMP, RBX, PageFormat.FIRST, RSI);
    a.jump(If.NE, badPage);
    a.op(Op.AND, RAX, PageFormat.MIDDLE_WORDS - 1);
    a.toMemory(Op.CMP, RBX, RAX, PageFormat.MIDDLE, RSI);
    a.jump(If.NE, badPage);
    a.unary(Unary.NOT, RSI);
    a.toMemory(Op.CMP, RBX, PageFormat.LAST, RSI);
    a.jump(If.NE, badPage);
    a.jump(write);

    // A page that must be zero: also the middle word that was filled last.
    a.here(expectZero);
    a.op(Op.XOR, RSI, RSI);
    a.toMemory(Op.CMP, RBX, PageFormat.FIRST, RSI);
    a.jump(If.NE, badPage);
    a.unary(Unary.DEC, RAX);
    a.op(Op.AND, RAX, PageFormat.MIDDLE_WORDS - 1);
    a.toMemory(Op.CMP, RBX, RAX, PageFormat.MIDDLE, RSI);
    a.jump(If.NE, badPage);
    a.toMemory(Op.CMP, RBX, PageFormat.LAST, RSI);
    a.jump(If.NE, badPage);

    // Write this pass's generation, in the order first, middle, last.
    a.here(write);
    a.op(Op.MOV, RCX, RDX);
    a.op(Op.ADD, RCX, RBP);
    a.test(RCX, PageFormat.ZERO_EVERY - 1);
    a.jump(If.E, writeZero);
    a.op(Op.MOV, RAX, RBP);
    a.shiftLeft(RAX, 32);
    a.op(Op.OR, RAX, RDX);
    a.toMemory(Op.MOV, RBX, PageFormat.FIRST, RAX);
    a.op(Op.MOV, RCX, RBP);
    a.op(Op.AND, RCX, PageFormat.MIDDLE_WORDS - 1);
    a.toMemory(Op.MOV, RBX, RCX, PageFormat.MIDDLE, RAX);
    a.unary(Unary.NOT, RAX);
    a.toMemory(Op.MOV, RBX, PageFormat.LAST, RAX);
    a.jump(next);

    a.here(writeZero);
    a.op(Op.MOV, RDI, RBX);
    a.set(RCX, (int) GuestMemory.PAGE / 8);
    a.op(Op.XOR, RAX, RAX);
    a.repeatStore();

    // One stride on, around the end. Back at the first page the pass is over.
    a.here(next);
    a.unary(Unary.INC, R15);
    a.op(Op.ADD, RBX, R8);
    a.op(Op.CMP, RBX, R9);
    a.jump(If.B, inside);
    a.op(Op.SUB, RBX, R10);
    a.here(inside);
    a.op(Op.CMP, RBX, (int) GuestMemory.TEST);
    a.jump(If.NE, samePass);
    a.unary(Unary.INC, RBP);
    a.here(samePass);
    a.unary(Unary.DEC, R12);
  }

  private static void checkMailbox(Assembler a, Label bad) {
    Label page = new Label();
    // RSI = head: never goes back, and the guest's own note of it is what the register says.
    a.load(RSI, R14, Mailbox.HEAD);
    a.op(Op.CMP, RSI, R13);
    a.jump(If.B, bad);
    a.toMemory(Op.CMP, R14, Mailbox.SEEN_HEAD, R13);
    a.jump(If.NE, bad);
    a.op(Op.MOV, R13, RSI);
    a.toMemory(Op.MOV, R14, Mailbox.SEEN_HEAD, RSI);
    // RCX counts the pages, RDI walks them.
    a.op(Op.XOR, RCX, RCX);
    a.op(Op.MOV, RDI, R14);
    a.op(Op.ADD, RDI, (int) Mailbox.FIRST_PAGE);
    a.here(page);
    // RDX = message of the last word, RAX = of the first, loaded in this order; RAX >= RDX.
    a.load(RDX, RDI, PageFormat.LAST);
    a.unary(Unary.NOT, RDX);
    a.load(RAX, RDI, PageFormat.FIRST);
    a.op(Op.CMP, RAX, RDX);
    a.jump(If.B, bad);
    // R11 = head - (head - page) % PAGES, the newest that the page must have; RDX >= R11.
    a.op(Op.MOV, R11, RSI);
    a.op(Op.SUB, R11, RCX);
    a.op(Op.AND, R11, Mailbox.PAGES - 1);
    a.unary(Unary.NEG, R11);
    a.op(Op.ADD, R11, RSI);
    a.op(Op.CMP, RDX, R11);
    a.jump(If.B, bad);
    // Both are messages of this page.
    a.op(Op.SUB, RDX, RCX);
    a.test(RDX, Mailbox.PAGES - 1);
    a.jump(If.NE, bad);
    a.op(Op.MOV, RDX, RAX);
    a.op(Op.SUB, RDX, RCX);
    a.test(RDX, Mailbox.PAGES - 1);
    a.jump(If.NE, bad);
    // Not older than what was seen before; seen now.
    a.toMemory(Op.CMP, R14, RCX, Mailbox.SEEN, RAX);
    a.jump(If.A, bad);
    a.toMemory(Op.MOV, R14, RCX, Mailbox.SEEN, RAX);
    a.op(Op.ADD, RDI, (int) GuestMemory.PAGE);
    a.unary(Unary.INC, RCX);
    a.op(Op.CMP, RCX, Mailbox.PAGES);
    a.jump(If.NE, page);
  }
}
