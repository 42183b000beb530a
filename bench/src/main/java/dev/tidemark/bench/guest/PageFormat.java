package dev.tidemark.bench.guest;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * What a test page holds: the one definition that the process guest runs, that the KVM guest's
 * program repeats in machine code, and that explains either's error.
 *
 * <p>Generation 0 is all zero. A page of generation g that is due to be zero (each one in sixteen,
 * others in each generation) is zero throughout. Any other has its value in the first word, in one
 * word of the middle that moves with the generation, and inverted in the last word; so its middle
 * fills with old values until it is zeroed again. The value depends on the page and the generation,
 * so a page at another place or of another time is noticed.
 */
final class PageFormat {
  static final long FIRST = 0;
  static final long MIDDLE = 0x400;
  static final int MIDDLE_WORDS = 256;
  static final long LAST = GuestMemory.PAGE - 8;
  static final int ZERO_EVERY = 16;

  private PageFormat() {}

  /** Whether a page is all zero in a generation. */
  static boolean isZero(long page, long generation) {
    return generation == 0 || (page + generation) % ZERO_EVERY == 0;
  }

  /** What a page that is not zero holds. */
  static long value(long page, long generation) {
    return generation << 32 | page;
  }

  private static long middle(long generation) {
    return MIDDLE + 8 * (generation & MIDDLE_WORDS - 1);
  }

  /** Whether a page holds what the generation must have left there. */
  static boolean matches(MemorySegment ram, long page, long generation) {
    long at = page << GuestMemory.PAGE_SHIFT;
    if (isZero(page, generation)) {
      // The word that the generation before had filled tells most.
      return ram.get(JAVA_LONG, at + FIRST) == 0
          && ram.get(JAVA_LONG, at + middle(generation - 1)) == 0
          && ram.get(JAVA_LONG, at + LAST) == 0;
    }
    long value = value(page, generation);
    return ram.get(JAVA_LONG, at + FIRST) == value
        && ram.get(JAVA_LONG, at + middle(generation)) == value
        && ram.get(JAVA_LONG, at + LAST) == ~value;
  }

  /** Writes a page's generation where it is. */
  static void write(MemorySegment ram, long page, long generation) {
    write(ram, page << GuestMemory.PAGE_SHIFT, page, generation);
  }

  /** Writes a page's generation over the one before, at some place. */
  static void write(MemorySegment memory, long at, long page, long generation) {
    if (isZero(page, generation)) {
      memory.asSlice(at, GuestMemory.PAGE).fill((byte) 0);
      return;
    }
    long value = value(page, generation);
    memory.set(JAVA_LONG, at + FIRST, value);
    memory.set(JAVA_LONG, at + middle(generation), value);
    memory.set(JAVA_LONG, at + LAST, ~value);
  }

  /** What is wrong with a page, in one line. */
  static String problem(MemorySegment ram, long page, long generation) {
    if (matches(ram, page, generation)) {
      return String.format(
          Locale.ROOT,
          "page %d: the guest found it wrong, but it holds generation %d now",
          page,
          generation);
    }
    long at = page << GuestMemory.PAGE_SHIFT;
    boolean zero = isZero(page, generation);
    long value = zero ? 0 : value(page, generation);
    long middle = middle(zero ? generation - 1 : generation);
    return String.format(
        Locale.ROOT,
        "page %d: found first word 0x%x, word at 0x%x 0x%x, last word 0x%x; generation %d has"
            + " 0x%x, 0x%x, 0x%x (values are generation << 32 | page)",
        page,
        ram.get(JAVA_LONG, at + FIRST),
        middle,
        ram.get(JAVA_LONG, at + middle),
        ram.get(JAVA_LONG, at + LAST),
        generation,
        value,
        value,
        zero ? 0 : ~value);
  }
}
