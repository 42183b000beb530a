package dev.tidemark.bench.guest;

import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.BitSet;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What both guests must do. */
@Timeout(value = 300, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
abstract class GuestTests {
  static final long RAM = 16L << 20;
  static final Duration LONG = Duration.ofSeconds(200);

  abstract GuestBase create(long ramBytes);

  private GuestBase started() throws InterruptedException {
    GuestBase guest = create(RAM);
    try {
      guest.start();
      pass(guest);
      return guest;
    } catch (AssertionError e) {
      guest.close();
      throw e;
    }
  }

  static void pass(SelfCheckingGuest guest) throws InterruptedException {
    assertTrue(guest.awaitFullPass(LONG), () -> "error: " + guest.error());
  }

  /** Waits for something that a guest brings about unless it stops with an error. */
  static void await(SelfCheckingGuest guest, BooleanSupplier condition)
      throws InterruptedException {
    while (!condition.getAsBoolean()) {
      assertTrue(guest.error().isEmpty(), () -> "error: " + guest.error());
      Thread.sleep(1);
    }
  }

  static void awaitPages(SelfCheckingGuest guest, long more) throws InterruptedException {
    long target = guest.pagesChecked() + more;
    await(guest, () -> guest.pagesChecked() >= target);
  }

  /** Lets a paused guest run until it has found what is wrong. */
  private static String errorOf(SelfCheckingGuest guest) throws InterruptedException {
    guest.resume();
    assertFalse(guest.awaitFullPass(LONG));
    guest.pause();
    return guest.error().orElseThrow();
  }

  private static long address(long page) {
    return page << GuestMemory.PAGE_SHIFT;
  }

  /** A page that holds values now, the {@code nth} of them. */
  private static long filledPage(GuestBase guest, int nth) {
    MemorySegment ram = guest.ram().memory();
    for (long page = GuestMemory.FIRST_TEST_PAGE; ; page++) {
      if (ram.get(JAVA_LONG, address(page)) != 0 && nth-- == 0) {
        return page;
      }
    }
  }

  private static long zeroPage(GuestBase guest) {
    MemorySegment ram = guest.ram().memory();
    for (long page = GuestMemory.FIRST_TEST_PAGE; ; page++) {
      if (ram.get(JAVA_LONG, address(page)) == 0) {
        return page;
      }
    }
  }

  @Test
  void itChecksEveryPageAgainAndAgain() throws InterruptedException {
    try (GuestBase guest = create(RAM)) {
      guest.start();
      for (int i = 0; i < 40; i++) {
        pass(guest);
        guest.pause();
        assertTrue(guest.pagesChecked() >= (i + 1) * guest.testPages());
        guest.resume();
      }
    }
  }

  @Test
  void whatItLeavesIsWhatTheFormatSays() throws InterruptedException {
    try (GuestBase guest = started()) {
      guest.resume();
      pass(guest);
      guest.pause();
      MemorySegment ram = guest.ram().memory();
      // Within a pass every page is of one of two generations.
      BitSet generations = new BitSet();
      for (long page = GuestMemory.FIRST_TEST_PAGE; page < guest.ram().pages(); page++) {
        long word = ram.get(JAVA_LONG, address(page));
        if (word != 0) {
          generations.set((int) (word >>> 32));
          assertTrue(PageFormat.matches(ram, page, word >>> 32), "page " + page);
        }
      }
      int newest = generations.length() - 1;
      assertTrue(generations.cardinality() <= 2 && generations.get(newest), generations.toString());
    }
  }

  @Test
  void pauseStopsEveryWrite() throws InterruptedException {
    try (GuestBase guest = started()) {
      long last = 0;
      for (int i = 0; i < 20; i++) {
        guest.pause();
        long digest = MemoryDigest.of(guest.ram().memory());
        Thread.sleep(5);
        assertEquals(digest, MemoryDigest.of(guest.ram().memory()));
        assertNotEquals(last, digest, "it ran in between");
        last = digest;
        guest.resume();
        awaitPages(guest, 1000);
      }
    }
  }

  @Test
  void aFlippedBitIsNoticed() throws InterruptedException {
    for (long offset : new long[] {PageFormat.FIRST, PageFormat.LAST}) {
      try (GuestBase guest = started()) {
        guest.pause();
        long page = filledPage(guest, 100);
        long at = address(page) + offset;
        MemorySegment ram = guest.ram().memory();
        ram.set(JAVA_LONG, at, ram.get(JAVA_LONG, at) ^ 1L << 40);
        String error = errorOf(guest);
        assertTrue(error.startsWith("page " + page + ":"), error);
        assertThrows(IllegalStateException.class, guest::resume);
      }
    }
  }

  @Test
  void aZeroPageThatIsNotIsNoticed() throws InterruptedException {
    try (GuestBase guest = started()) {
      guest.pause();
      long page = zeroPage(guest);
      guest.ram().memory().set(JAVA_LONG, address(page) + PageFormat.LAST, 1);
      String error = errorOf(guest);
      assertTrue(error.startsWith("page " + page + ":"), error);
    }
  }

  @Test
  void aPageThatWasNotZeroedIsNoticed() throws InterruptedException {
    try (GuestBase guest = started()) {
      pass(guest);
      guest.pause();
      // As if an older state of the page had come after the newer one, which is zero.
      MemorySegment ram = guest.ram().memory();
      long page = zeroPage(guest);
      PageFormat.write(ram, page, PageFormat.isZero(page, 7) ? 8 : 7);
      String error = errorOf(guest);
      assertTrue(error.startsWith("page " + page + ":"), error);
    }
  }

  @Test
  void swappedPagesAreNoticed() throws InterruptedException {
    try (GuestBase guest = started();
        Arena arena = Arena.ofConfined()) {
      guest.pause();
      MemorySegment ram = guest.ram().memory();
      MemorySegment one = ram.asSlice(address(filledPage(guest, 10)), GuestMemory.PAGE);
      MemorySegment two = ram.asSlice(address(filledPage(guest, 20)), GuestMemory.PAGE);
      MemorySegment copy = arena.allocate(GuestMemory.PAGE);
      copy.copyFrom(one);
      one.copyFrom(two);
      two.copyFrom(copy);
      String error = errorOf(guest);
      assertTrue(error.startsWith("page "), error);
    }
  }

  @Test
  void aStalePageIsNoticed() throws InterruptedException {
    try (GuestBase guest = started();
        Arena arena = Arena.ofConfined()) {
      guest.pause();
      long page = filledPage(guest, 50);
      MemorySegment memory = guest.ram().memory().asSlice(address(page), GuestMemory.PAGE);
      MemorySegment old = arena.allocate(GuestMemory.PAGE);
      old.copyFrom(memory);
      // Two passes, so that this page was written in between wherever the walk was paused.
      guest.resume();
      pass(guest);
      guest.pause();
      assertNotEquals(-1, old.mismatch(memory));
      memory.copyFrom(old);
      String error = errorOf(guest);
      assertTrue(error.startsWith("page " + page + ":"), error);
    }
  }

  @Test
  void aStaleMailboxPageIsNoticed() throws InterruptedException {
    try (GuestBase guest = started();
        Arena arena = Arena.ofConfined()) {
      for (long page : new long[] {Mailbox.blockPage(5), Mailbox.blockHeadPage()}) {
        assertEquals(true, guest.error().isEmpty());
        MemorySegment memory = guest.ram().memory().asSlice(address(page), GuestMemory.PAGE);
        guest.pause();
        MemorySegment old = arena.allocate(GuestMemory.PAGE);
        old.copyFrom(memory);
        guest.resume();
        long before = old.get(JAVA_LONG, 0);
        await(guest, () -> memory.get(JAVA_LONG, 0) != before);
        // The guest must have seen a newer head; it looks at it after each batch.
        pass(guest);
        awaitPages(guest, 2 * GuestBase.BATCH);
        guest.pause();
        MemorySegment good = arena.allocate(GuestMemory.PAGE);
        good.copyFrom(memory);
        memory.copyFrom(old);
        byte[] state = guest.saveState();
        try (GuestBase other = create(RAM)) {
          other.ram().memory().copyFrom(guest.ram().memory());
          other.loadState(state);
          String error = errorOf(other);
          assertTrue(error.startsWith("mailbox"), error);
        }
        memory.copyFrom(good);
        guest.resume();
        pass(guest);
      }
    }
  }

  @Test
  void aLostNoteOfItsOwnIsNoticed() throws InterruptedException {
    try (GuestBase guest = started()) {
      guest.pause();
      MemorySegment ram = guest.ram().memory();
      long at = GuestMemory.CONTROL + Mailbox.SEEN_HEAD;
      ram.set(JAVA_LONG, at, ram.get(JAVA_LONG, at) - 1);
      String error = errorOf(guest);
      assertTrue(error.startsWith("mailbox"), error);
    }
  }

  @Test
  void itGoesOnElsewhere() throws InterruptedException {
    try (GuestBase guest = started();
        GuestBase other = create(RAM)) {
      guest.pause();
      assertTrue(guest.lastExitNanos() - guest.firstRunNanos() > 0);
      byte[] state = guest.saveState();
      other.ram().memory().copyFrom(guest.ram().memory());
      other.loadState(state);
      assertEquals(guest.pagesChecked(), other.pagesChecked());
      assertEquals(MemoryDigest.of(guest.ram().memory()), MemoryDigest.of(other.ram().memory()));
      other.resume();
      pass(other);
      other.pause();
      assertTrue(other.firstRunNanos() - guest.lastExitNanos() > 0);
      // And where it was, as after a migration that failed.
      guest.resume();
      pass(guest);
    }
  }

  @Test
  void thePaceIsKept() throws InterruptedException {
    try (GuestBase guest = started()) {
      guest.pause();
      long before = guest.pagesChecked();
      guest.setRate(10_000);
      guest.resume();
      Thread.sleep(200);
      guest.pause();
      long nanos = guest.lastExitNanos() - guest.firstRunNanos();
      long most = nanos / 100_000 + 10_000 / 50 + 2 * GuestBase.BATCH;
      long pages = guest.pagesChecked() - before;
      assertTrue(pages <= most, pages + " pages in " + nanos + " ns");
      guest.setRate(1);
      guest.resume();
      guest.pause();
      guest.resume();
      guest.setRate(0);
      pass(guest);
    }
  }

  @Test
  void everyWriteOfTheVmmIsReported() throws InterruptedException {
    try (GuestBase guest = create(RAM)) {
      BitSet written = new BitSet();
      guest.onVmmWrite(
          (first, pages) -> {
            synchronized (written) {
              written.set((int) first, (int) (first + pages));
            }
          });
      guest.start();
      synchronized (written) {
        assertEquals(GuestMemory.FIRST_TEST_PAGE, written.nextClearBit(0), "what start prepared");
        written.clear();
      }
      await(
          guest,
          () -> {
            synchronized (written) {
              return written.cardinality() > Mailbox.PAGES;
            }
          });
      guest.pause();
      assertTrue(written.get((int) Mailbox.blockHeadPage()));
      for (int i = 0; i < Mailbox.PAGES; i++) {
        assertTrue(written.get((int) Mailbox.blockPage(i)));
      }
      assertEquals(Mailbox.PAGES + 1, written.cardinality());
    }
  }

  @Test
  void wrongStatesAreRefused() throws InterruptedException {
    try (GuestBase guest = started();
        GuestBase other = create(2 * RAM)) {
      assertThrows(IllegalStateException.class, guest::saveState);
      guest.pause();
      byte[] state = guest.saveState();
      assertThrows(IllegalStateException.class, () -> guest.loadState(state));
      assertThrows(IllegalArgumentException.class, () -> other.loadState(state), "more RAM");
      assertThrows(IllegalArgumentException.class, () -> other.loadState(new byte[0]));
      byte[] wrong = state.clone();
      wrong[0]++;
      assertThrows(IllegalArgumentException.class, () -> other.loadState(wrong));
      assertThrows(IllegalStateException.class, other::resume);
    }
  }

  @Test
  void anImpossibleSizeIsRefused() {
    assertThrows(IllegalArgumentException.class, () -> create(4 << 20));
    assertThrows(IllegalArgumentException.class, () -> create(RAM + 1));
    assertThrows(IllegalArgumentException.class, () -> create(-1));
  }

  @Test
  void closingWhileItRunsStopsIt() throws InterruptedException {
    GuestBase guest = started();
    guest.close();
    guest.close();
    assertThrows(IllegalStateException.class, guest::resume);
  }
}
