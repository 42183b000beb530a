package dev.tidemark.bench.guest;

import java.util.Locale;

/**
 * Where a self-checking guest keeps what, in bytes from the start of its RAM block, which is also
 * its physical address 0. Its pages have 4 KiB.
 *
 * <pre>
 *   0x001000  page tables (PML4, PDPT), used by the KVM guest only
 *   0x008000  its program
 *   0x100000  page directories, one page per GiB
 *   0x200000  head page of the mailbox, written by the VMM
 *   0x201000  the guest's own page: what it has seen of the mailbox
 *   0x202000  the mailbox's pages, written by the VMM
 *   0x400000  test pages, to the end of RAM
 * </pre>
 */
final class GuestMemory {
  static final long PAGE = 4096;
  static final int PAGE_SHIFT = 12;

  static final long PML4 = 0x1000;
  static final long PDPT = 0x2000;
  static final long PROGRAM = 0x8000;
  static final long DIRECTORIES = 0x10_0000;
  static final long CONTROL = 0x20_0000;
  static final long TEST = 0x40_0000;

  static final long FIRST_TEST_PAGE = TEST >> PAGE_SHIFT;

  /** There is room for one page directory per GiB up to this. */
  static final long MOST_BYTES = 256L << 30;

  private static final long LEAST_TEST_PAGES = 64;

  final long bytes;
  final long testPages;

  /**
   * How many pages further the walk goes each time, wrapping around: coprime with their number, so
   * that a walk comes to each page once, and near the golden section of it, so that neighbours in
   * time are far apart in memory.
   */
  final long stride;

  GuestMemory(long bytes) {
    long least = TEST + LEAST_TEST_PAGES * PAGE;
    if (bytes < least || bytes > MOST_BYTES || bytes % PAGE != 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "a guest with %d bytes of RAM: from %d to %d, in whole pages of %d",
              bytes,
              least,
              MOST_BYTES,
              PAGE));
    }
    this.bytes = bytes;
    this.testPages = bytes - TEST >> PAGE_SHIFT;
    long candidate = (long) (testPages * 0.6180339887498949);
    while (gcd(candidate, testPages) != 1) {
      candidate++;
    }
    this.stride = candidate;
  }

  private static long gcd(long a, long b) {
    return b == 0 ? a : gcd(b, a % b);
  }
}
