package dev.tidemark.bench.guest;

import static dev.tidemark.bench.guest.Assembler.Reg.R11;
import static dev.tidemark.bench.guest.Assembler.Reg.R12;
import static dev.tidemark.bench.guest.Assembler.Reg.R13;
import static dev.tidemark.bench.guest.Assembler.Reg.R14;
import static dev.tidemark.bench.guest.Assembler.Reg.R15;
import static dev.tidemark.bench.guest.Assembler.Reg.RAX;
import static dev.tidemark.bench.guest.Assembler.Reg.RBP;
import static dev.tidemark.bench.guest.Assembler.Reg.RBX;
import static dev.tidemark.bench.guest.Assembler.Reg.RCX;
import static dev.tidemark.bench.guest.Assembler.Reg.RDI;
import static dev.tidemark.bench.guest.Assembler.Reg.RDX;
import static dev.tidemark.bench.guest.Assembler.Reg.RSI;
import static dev.tidemark.bench.guest.Assembler.Reg.RSP;

import dev.tidemark.bench.guest.Assembler.If;
import dev.tidemark.bench.guest.Assembler.Label;
import dev.tidemark.bench.guest.Assembler.Op;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Locale;

/**
 * A guest that another VMM boots: a multiboot image (version 1) for a PC with one CPU, which visits
 * and checks its pages as the KVM guest does, keeps its pace by its own clock, and notes in its
 * memory how it gets on. It has no mailbox, and no device but the interrupt controller and a timer
 * of 1 kHz that it sleeps by.
 *
 * <p>Up to {@link #LOW_RAM} bytes of RAM begin at physical address 0, the rest at 4 GiB. The clock
 * is the time stamp counter; where the guest is told its pace, it is told in that clock's ticks.
 *
 * <pre>
 *   0x200000  multiboot header, program
 *   0x201000  descriptor tables, stack
 *   0x202000  status: see the constants
 *   0x203000  longest stall by time: a word for each window of 2^28 ticks, 4096 of them in turn
 *   0x20b000  page tables
 *   0x400000  test pages, to the end of RAM
 * </pre>
 */
public final class BootImage {
  /** Bytes of RAM below 4 GiB. */
  public static final long LOW_RAM = 3L << 30;

  /** Physical address of the status, which is words of 64 bits. */
  public static final long STATUS = 0x20_2000;

  /** Word of the status: the clock when the last batch was done. */
  public static final int TICKS = 0;

  /** Word of the status: pages checked and written since the start. */
  public static final int PAGES = 1;

  /** Word of the status: 1 while the guest comes through its memory for the first time. */
  public static final int GENERATION = 2;

  /**
   * Word of the status: address of a page that was wrong; the guest has stopped then; 0 if none.
   */
  public static final int BAD_PAGE = 3;

  /** Number of words in the status. */
  public static final int WORDS = 4;

  /**
   * Physical address of the stalls. A stall is how long a batch of 64 pages took, in ticks, counted
   * from when the pace allowed it; each word is the longest that ended in its window.
   */
  public static final long STALLS = 0x20_3000;

  /** How many windows there are, used in turn. */
  public static final int WINDOWS = 4096;

  /** A window's number is the clock shifted by so many bits. */
  public static final int WINDOW_SHIFT = 28;

  private static final long IMAGE = GuestMemory.CONTROL;
  private static final int STUB = 0x20;
  private static final int INTERRUPT = 0x80;
  private static final int ENTRY = 0x90;
  private static final int TABLES = 0x1000;
  private static final int GDT_POINTER = TABLES + 0x20;
  private static final int IDT_POINTER = TABLES + 0x30;
  private static final int IDT = TABLES + 0x100;
  private static final int IN_STATUS = (int) (STATUS - IMAGE);
  private static final int PML4 = 0xb000;
  private static final int PDPT = 0xc000;
  private static final int DIRECTORIES = 0xd000;

  private static final int TIMER_VECTOR = 0x20;

  /** The timer's clock of 1193182 Hz divided by this is 1 kHz. */
  private static final int TIMER_DIVISOR = 1193;

  /** More words of the status, for the guest alone. */
  private static final int WINDOW = 4;

  private static final int PERIOD = 5;
  private static final int MOST_LAG = 6;

  /** Present, writable, user, accessed, as in {@link KvmGuest}; and dirty, a page of 2 MiB. */
  private static final long TABLE = 0x27;

  private static final long LARGE_PAGE = 0xe7;

  private BootImage() {}

  /**
   * Makes an image.
   *
   * @param ramBytes bytes of RAM, whole pages, from 4 MiB and 64 pages to 256 GiB
   * @param pagesPerSecond the pace, 0 for as fast as it can; the first time through its memory the
   *     guest keeps none
   * @param ticksPerSecond of the guest's clock; any if there is no pace
   * @return what a multiboot loader loads, flat
   */
  public static byte[] of(long ramBytes, long pagesPerSecond, double ticksPerSecond) {
    GuestMemory map = new GuestMemory(ramBytes);
    int gibs = (int) ((ramBytes + (1 << 30) - 1) >> 30);
    ByteBuffer image =
        ByteBuffer.allocate(DIRECTORIES + gibs * (int) GuestMemory.PAGE)
            .order(ByteOrder.LITTLE_ENDIAN);
    header(image);
    put(image, STUB, stub(), INTERRUPT);
    put(image, INTERRUPT, interrupt(), ENTRY);
    put(image, ENTRY, program(map), TABLES);
    descriptors(image);
    pageTables(image, ramBytes);
    boolean paced = pagesPerSecond != 0;
    double period = paced ? GuestBase.BATCH * ticksPerSecond / pagesPerSecond : 0;
    double lag = paced ? GuestBase.MOST_LAG_NANOS * ticksPerSecond / 1e9 : 0;
    image.putLong(IN_STATUS + 8 * PERIOD, (long) period);
    image.putLong(IN_STATUS + 8 * MOST_LAG, (long) lag);
    return image.array();
  }

  private static void put(ByteBuffer image, int at, byte[] code, int end) {
    if (at + code.length > end) {
      throw new IllegalStateException(
          String.format(Locale.ROOT, "%d bytes of code at 0x%x", code.length, at));
    }
    image.put(at, code);
  }

  private static void header(ByteBuffer image) {
    int magic = 0x1bad_b002;
    // The addresses are in the header.
    int flags = 1 << 16;
    image.putInt(magic).putInt(flags).putInt(-(magic + flags));
    // Where the header is, where to load it; to the file's end, nothing to clear; where to start.
    image.putInt((int) IMAGE).putInt((int) IMAGE).putInt(0).putInt(0).putInt((int) IMAGE + STUB);
  }

  /** From 32-bit protected mode without paging to 64-bit mode. */
  private static byte[] stub() {
    Assembler a = new Assembler();
    a.raw(0xb8); // mov eax, PML4
    a.raw32(IMAGE + PML4);
    a.raw(0x0f, 0x22, 0xd8); // mov cr3, eax
    a.raw(0x0f, 0x20, 0xe0); // mov eax, cr4
    a.raw(0x83, 0xc8, 0x20); // or eax, PAE
    a.raw(0x0f, 0x22, 0xe0); // mov cr4, eax
    a.raw(0xb9); // mov ecx, EFER
    a.raw32(0xc000_0080L);
    a.raw(0x0f, 0x32); // rdmsr
    a.raw(0x0d); // or eax, LME
    a.raw32(0x100);
    a.raw(0x0f, 0x30); // wrmsr
    a.raw(0x0f, 0x20, 0xc0); // mov eax, cr0
    a.raw(0x0d); // or eax, PG | PE
    a.raw32(0x8000_0001L);
    a.raw(0x0f, 0x22, 0xc0); // mov cr0, eax
    a.raw(0x0f, 0x01, 0x15); // lgdt [GDT_POINTER]
    a.raw32(IMAGE + GDT_POINTER);
    a.raw(0xea); // jmp 8:ENTRY
    a.raw32(IMAGE + ENTRY);
    a.raw(0x08, 0x00);
    return a.bytes();
  }

  /** The timer's interrupt only has to end a HLT. */
  private static byte[] interrupt() {
    Assembler a = new Assembler();
    a.raw(0x50); // push rax
    a.raw(0xb0, 0x20); // mov al, end of interrupt
    a.out(0x20);
    a.raw(0x58); // pop rax
    a.raw(0x48, 0xcf); // iretq
    return a.bytes();
  }

  private static void out(Assembler a, int port, int value) {
    a.raw(0xb0, value); // mov al, value
    a.out(port);
  }

  /** RAX = the clock; takes RDX. */
  private static void readClock(Assembler a) {
    a.raw(0x0f, 0x31); // rdtsc
    a.shiftLeft(RDX, 32);
    a.op(Op.OR, RAX, RDX);
  }

  /**
   * As {@link GuestProgram}, but that R13 is when the pace wants the next batch, R11 when the batch
   * under way was allowed to begin, and R14 the status.
   */
  private static byte[] program(GuestMemory map) {
    Assembler a = new Assembler();
    a.raw(0xb8); // mov eax, data segment
    a.raw32(0x10);
    a.raw(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0); // mov ds, es, ss
    a.set(RSP, (int) STATUS); // grows down
    a.raw(0x0f, 0x01, 0x1c, 0x25); // lidt [IDT_POINTER]
    a.raw32(IMAGE + IDT_POINTER);
    // Interrupt controller (8259): its vectors, a second one at line 2, 8086 mode, line 0 only.
    out(a, 0x20, 0x11);
    out(a, 0x21, TIMER_VECTOR);
    out(a, 0x21, 1 << 2);
    out(a, 0x21, 0x01);
    out(a, 0x21, 0xfe);
    // Timer (8254): channel 0, both bytes, periodic.
    out(a, 0x43, 0x34);
    out(a, 0x40, TIMER_DIVISOR & 255);
    out(a, 0x40, TIMER_DIVISOR >> 8);
    a.raw(0xfc, 0xfb); // cld, sti
    a.set(RBX, (int) GuestMemory.TEST);
    a.set(RBP, 1);
    a.raw(0x49, 0xb8); // mov r8, stride
    raw64(a, map.stride << GuestMemory.PAGE_SHIFT);
    a.raw(0x49, 0xb9); // mov r9, end
    raw64(a, map.bytes);
    a.raw(0x49, 0xba); // mov r10, length
    raw64(a, map.testPages << GuestMemory.PAGE_SHIFT);
    a.set(R12, GuestBase.BATCH);
    a.set(R14, (int) STATUS);
    a.op(Op.XOR, R15, R15);

    Label visit = new Label();
    Label badPage = new Label();
    a.here(visit);
    GuestProgram.visitPage(a, false, badPage);
    a.jump(If.NE, visit);
    endOfBatch(a);
    a.jump(visit);

    a.here(badPage);
    a.toMemory(Op.MOV, R14, 8 * BAD_PAGE, RBX);
    Label stopped = new Label();
    a.here(stopped);
    a.raw(0xf4); // hlt
    a.jump(stopped);
    return a.bytes();
  }

  private static void raw64(Assembler a, long value) {
    a.raw32(value);
    a.raw32(value >>> 32);
  }

  /** Notes how it went, and waits until the pace wants the next one. */
  private static void endOfBatch(Assembler a) {
    Label paced = new Label();
    Label sameWindow = new Label();
    Label notLonger = new Label();
    Label soonEnough = new Label();
    Label wait = new Label();
    Label sleep = new Label();
    Label begin = new Label();
    Label end = new Label();
    a.set(R12, GuestBase.BATCH);
    readClock(a);
    a.toMemory(Op.MOV, R14, 8 * TICKS, RAX);
    a.toMemory(Op.MOV, R14, 8 * PAGES, R15);
    a.toMemory(Op.MOV, R14, 8 * GENERATION, RBP);
    a.op(Op.CMP, RBP, 1);
    a.jump(If.NE, paced);
    a.op(Op.MOV, R13, RAX);
    a.op(Op.MOV, R11, RAX);
    a.jump(end);

    // RCX = the stall, RDX = its window.
    a.here(paced);
    a.op(Op.MOV, RCX, RAX);
    a.op(Op.SUB, RCX, R11);
    a.op(Op.MOV, RDX, RAX);
    a.shiftRight(RDX, WINDOW_SHIFT);
    a.op(Op.AND, RDX, WINDOWS - 1);
    a.toMemory(Op.CMP, R14, 8 * WINDOW, RDX);
    a.jump(If.E, sameWindow);
    a.toMemory(Op.MOV, R14, 8 * WINDOW, RDX);
    a.op(Op.XOR, RDI, RDI);
    a.toMemory(Op.MOV, R14, RDX, STALLS - STATUS, RDI);
    a.here(sameWindow);
    a.toMemory(Op.CMP, R14, RDX, STALLS - STATUS, RCX);
    a.jump(If.A, notLonger);
    a.toMemory(Op.MOV, R14, RDX, STALLS - STATUS, RCX);
    a.here(notLonger);

    // The pace; who is too far behind it does not catch up.
    a.load(RCX, R14, 8 * PERIOD);
    a.op(Op.ADD, R13, RCX);
    a.load(RCX, R14, 8 * MOST_LAG);
    a.op(Op.ADD, RCX, R13);
    a.op(Op.CMP, RCX, RAX);
    a.jump(If.A, soonEnough);
    a.op(Op.MOV, R13, RAX);
    a.here(soonEnough);
    // RSI = when the batch was done.
    a.op(Op.MOV, RSI, RAX);
    a.here(wait);
    a.op(Op.CMP, RAX, R13);
    a.jump(If.B, sleep);
    a.jump(begin);
    a.here(sleep);
    a.raw(0xf4); // hlt
    readClock(a);
    a.jump(wait);
    a.here(begin);
    a.op(Op.MOV, R11, RSI);
    a.op(Op.CMP, RSI, R13);
    a.jump(If.A, end);
    a.op(Op.MOV, R11, R13);
    a.here(end);
  }

  private static void descriptors(ByteBuffer image) {
    // Null, 64-bit code, data.
    image.putLong(TABLES + 8, 0x00af_9a00_0000_ffffL);
    image.putLong(TABLES + 16, 0x00cf_9200_0000_ffffL);
    image.putShort(GDT_POINTER, (short) 23);
    image.putInt(GDT_POINTER + 2, (int) IMAGE + TABLES);
    int gate = IDT + 16 * TIMER_VECTOR;
    long handler = IMAGE + INTERRUPT;
    image.putShort(IDT_POINTER, (short) (gate + 16 - IDT - 1));
    image.putLong(IDT_POINTER + 2, IMAGE + IDT);
    // An interrupt gate of code segment 8; the handler's address is below 4 GiB.
    image.putLong(gate, handler >> 16 << 48 | 0x8e00L << 32 | 8L << 16 | handler & 0xffff);
  }

  /** The test pages are contiguous for the program, whatever lies between them in the machine. */
  private static void pageTables(ByteBuffer image, long ramBytes) {
    image.putLong(PML4, IMAGE + PDPT | TABLE);
    for (long at = 0; at < ramBytes; at += 1 << 21) {
      int gib = (int) (at >> 30);
      image.putLong(PDPT + 8 * gib, IMAGE + DIRECTORIES + gib * GuestMemory.PAGE | TABLE);
      long physical = at < LOW_RAM ? at : at - LOW_RAM + (4L << 30);
      image.putLong(DIRECTORIES + 8 * (int) (at >> 21), physical | LARGE_PAGE);
    }
  }
}
