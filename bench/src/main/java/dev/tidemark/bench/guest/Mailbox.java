package dev.tidemark.bench.guest;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.Locale;

/**
 * The pages that the VMM writes and the guest checks: the one definition, as {@link PageFormat} is
 * for test pages.
 *
 * <p>Message s goes to page s mod {@link #PAGES}: s into its first word, then inverted into its
 * last, then s into the head page. A reader takes the head first, and of a page the last word
 * before the first. So at any moment, for head h: both words are of messages of this page, not
 * older than its newest up to h, and the last word's is not newer than the first's. Nothing ever
 * goes back; the guest keeps what it has seen in a page of its own.
 */
final class Mailbox {
  static final int PAGES = 16;

  /** In bytes from {@link GuestMemory#CONTROL}. */
  static final long HEAD = 0;

  static final long SEEN_HEAD = GuestMemory.PAGE;
  static final long SEEN = GuestMemory.PAGE + 64;
  static final long FIRST_PAGE = 2 * GuestMemory.PAGE;

  private static final VarHandle WORD = JAVA_LONG.varHandle().withInvokeExactBehavior();

  private Mailbox() {}

  private static long load(MemorySegment ram, long offset) {
    return (long) WORD.getAcquire(ram, GuestMemory.CONTROL + offset);
  }

  private static void store(MemorySegment ram, long offset, long value) {
    WORD.setRelease(ram, GuestMemory.CONTROL + offset, value);
  }

  private static long page(long sequence) {
    return FIRST_PAGE + (sequence & PAGES - 1) * GuestMemory.PAGE;
  }

  /** The page of the block that a message goes to. */
  static long blockPage(long sequence) {
    return GuestMemory.CONTROL + page(sequence) >> GuestMemory.PAGE_SHIFT;
  }

  /** The page of the block that has the head. */
  static long blockHeadPage() {
    return GuestMemory.CONTROL + HEAD >> GuestMemory.PAGE_SHIFT;
  }

  /** The page of the block that the guest writes itself. */
  static long blockSeenPage() {
    return GuestMemory.CONTROL + SEEN_HEAD >> GuestMemory.PAGE_SHIFT;
  }

  /** Fills every page once. The first message after that is number {@link #PAGES}. */
  static void initialize(MemorySegment ram) {
    for (long sequence = 0; sequence < PAGES; sequence++) {
      writeMessage(ram, sequence);
    }
    writeHead(ram, PAGES - 1);
    store(ram, SEEN_HEAD, 0);
  }

  static void writeMessage(MemorySegment ram, long sequence) {
    store(ram, page(sequence), sequence);
    store(ram, page(sequence) + PageFormat.LAST, ~sequence);
  }

  static void writeHead(MemorySegment ram, long sequence) {
    store(ram, HEAD, sequence);
  }

  /**
   * Checks everything and remembers what was seen.
   *
   * @param seenHead the newest head that the guest has seen
   * @return the head now, or -1 if something is wrong
   */
  static long check(MemorySegment ram, long seenHead) {
    long head = load(ram, HEAD);
    if (head < seenHead || load(ram, SEEN_HEAD) != seenHead) {
      return -1;
    }
    store(ram, SEEN_HEAD, head);
    for (int i = 0; i < PAGES; i++) {
      long last = ~load(ram, page(i) + PageFormat.LAST);
      long first = load(ram, page(i));
      if (isWrong(head, i, first, last) || first < load(ram, SEEN + 8L * i)) {
        return -1;
      }
      store(ram, SEEN + 8L * i, first);
    }
    return head;
  }

  private static boolean isWrong(long head, int page, long first, long last) {
    long newest = head - (head - page & PAGES - 1);
    return first < last
        || last < newest
        || (first - page & PAGES - 1) != 0
        || (last - page & PAGES - 1) != 0;
  }

  /** What is wrong, in one line. */
  static String problem(MemorySegment ram, long seenHead) {
    long head = load(ram, HEAD);
    if (head < seenHead || load(ram, SEEN_HEAD) != seenHead) {
      return String.format(
          Locale.ROOT,
          "mailbox: head is %d, the guest had seen %d and noted %d",
          head,
          seenHead,
          load(ram, SEEN_HEAD));
    }
    for (int i = 0; i < PAGES; i++) {
      long last = ~load(ram, page(i) + PageFormat.LAST);
      long first = load(ram, page(i));
      long seen = load(ram, SEEN + 8L * i);
      if (isWrong(head, i, first, last) || first < seen) {
        return String.format(
            Locale.ROOT,
            "mailbox page %d (page %d): messages %d and %d, with head %d and %d seen before",
            i,
            blockPage(i),
            first,
            last,
            head,
            seen);
      }
    }
    return "mailbox: the guest found it wrong, but it is right now";
  }
}
