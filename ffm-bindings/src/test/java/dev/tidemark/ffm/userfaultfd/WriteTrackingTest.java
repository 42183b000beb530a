package dev.tidemark.ffm.userfaultfd;

import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PAGE_IS_HUGE;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PAGE_IS_WRITTEN;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PM_SCAN_CHECK_WPASYNC;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PM_SCAN_WP_MATCHING;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.ffm.Allocations;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Memfd;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.userfaultfd.Pagemap.Query;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What the running kernel does, written down for those who build on it. */
class WriteTrackingTest {
  private static final int MADV_DONTNEED = 4;
  private static final int MADV_REMOVE = 9;
  private static final int MADV_HUGEPAGE = 14;
  private static final long HUGE = 2 << 20;

  private static final Query PEEK = new Query(0, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 0);

  private final List<AutoCloseable> owned = new ArrayList<>();
  private Userfaultfd uffd;
  private Pagemap pagemap;
  private long seen;

  @BeforeEach
  void open() {
    var missing = Userfaultfd.probe().missing(UFFD_FEATURE_WP_ASYNC).or(Pagemap::missing);
    assumeTrue(missing.isEmpty(), () -> missing.orElseThrow());
    uffd = own(Userfaultfd.open(UFFD_FEATURE_WP_ASYNC));
    pagemap = own(Pagemap.open(4096));
  }

  @AfterEach
  void close() throws Exception {
    for (AutoCloseable each : owned.reversed()) {
      each.close();
    }
  }

  private <T extends AutoCloseable> T own(T owner) {
    owned.add(owner);
    return owner;
  }

  private MemorySegment anonymous(long pages) {
    return own(Mapping.anonymous(pages * Pages.SIZE)).segment();
  }

  /** Anonymous memory, registered, protected, and so far not written. */
  private MemorySegment tracked(long pages) {
    MemorySegment memory = anonymous(pages);
    track(memory);
    return memory;
  }

  private void track(MemorySegment memory) {
    uffd.register(memory.address(), memory.byteSize());
    pagemap.protect(memory.address(), end(memory));
  }

  private static long end(MemorySegment memory) {
    return memory.address() + memory.byteSize();
  }

  private static void write(MemorySegment memory, long page) {
    memory.set(JAVA_BYTE, page * Pages.SIZE, (byte) 1);
  }

  private BitSet pages(Query query, MemorySegment memory) {
    BitSet found = new BitSet();
    for (long at = memory.address(); at < end(memory); at = pagemap.walkEnd()) {
      int regions = pagemap.scan(query, at, end(memory));
      for (int i = 0; i < regions; i++) {
        found.set(page(memory, pagemap.start(i)), page(memory, pagemap.end(i)));
      }
    }
    return found;
  }

  private BitSet take(MemorySegment memory) {
    return pages(Query.TAKE_WRITTEN, memory);
  }

  private static int page(MemorySegment memory, long address) {
    return (int) ((address - memory.address()) / Pages.SIZE);
  }

  private static BitSet set(int... pages) {
    BitSet set = new BitSet();
    for (int page : pages) {
      set.set(page);
    }
    return set;
  }

  private static BitSet all(int pages) {
    BitSet set = new BitSet();
    set.set(0, pages);
    return set;
  }

  private static int errno(Runnable call) {
    return assertThrows(LinuxException.class, call::run).errno();
  }

  @Test
  void everyPageCountsAsWrittenBeforeItWasProtectedAlsoUntouchedOnes() {
    MemorySegment memory = anonymous(16);
    write(memory, 3);
    uffd.register(memory.address(), memory.byteSize());
    assertEquals(all(16), take(memory));
    assertEquals(set(), take(memory));
  }

  @Test
  void aScanTakesExactlyTheWrittenPagesOnce() {
    MemorySegment memory = tracked(64);
    write(memory, 0);
    write(memory, 7);
    write(memory, 8);
    write(memory, 63);
    assertEquals(set(0, 7, 8, 63), take(memory));
    assertEquals(set(), take(memory));
    write(memory, 7);
    assertEquals(set(7), take(memory));
  }

  @Test
  void lookingWithoutProtectingDoesNotTake() {
    MemorySegment memory = tracked(4);
    write(memory, 2);
    assertEquals(set(2), pages(PEEK, memory));
    assertEquals(set(2), take(memory));
  }

  @Test
  void neighboursComeAsOneRegion() {
    MemorySegment memory = tracked(16);
    write(memory, 4);
    write(memory, 5);
    write(memory, 6);
    assertEquals(1, pagemap.scan(Query.TAKE_WRITTEN, memory.address(), end(memory)));
    assertEquals(memory.address() + 4 * Pages.SIZE, pagemap.start(0));
    assertEquals(memory.address() + 7 * Pages.SIZE, pagemap.end(0));
    assertEquals(PAGE_IS_WRITTEN, pagemap.categories(0));
    assertThrows(IndexOutOfBoundsException.class, () -> pagemap.start(1));
  }

  @Test
  void readingAnUntouchedPageIsNoWrite() {
    MemorySegment memory = tracked(4);
    assertEquals(0, memory.get(JAVA_BYTE, Pages.SIZE));
    assertEquals(set(), take(memory));
  }

  @Test
  void aWriteByASystemCallIsSeen() throws Exception {
    MemorySegment memory = tracked(4);
    try (Fd zero = Fd.open("/dev/zero", Fd.O_RDONLY)) {
      int number = zero.acquire();
      assertEquals(10, Libc.read(number, memory.asSlice(2 * Pages.SIZE), 10));
      zero.release();
    }
    assertEquals(set(2), take(memory));
  }

  @Test
  void aWriteBetweenTwoScansOfAnotherThreadIsSeen() throws Exception {
    MemorySegment memory = tracked(4);
    Thread writer = new Thread(() -> write(memory, 1));
    writer.start();
    writer.join();
    assertEquals(set(1), take(memory));
  }

  @Test
  void moreRegionsThanTheKernelsRoundLeaveWalkEndBehindYetLoseNothing() {
    MemorySegment memory = tracked(4096);
    BitSet expected = new BitSet();
    for (int page = 0; page < 4096; page += 2) {
      write(memory, page);
      expected.set(page);
    }
    int regions = pagemap.scan(Query.TAKE_WRITTEN, memory.address(), end(memory));
    assertEquals(2048, regions);
    assertTrue(
        pagemap.walkEnd() <= end(memory),
        () -> "walk_end 0x" + Long.toHexString(pagemap.walkEnd()));
    BitSet found = new BitSet();
    for (int i = 0; i < regions; i++) {
      found.set(page(memory, pagemap.start(i)), page(memory, pagemap.end(i)));
    }
    assertEquals(expected, found);
    if (pagemap.walkEnd() < end(memory)) {
      assertEquals(0, pagemap.scan(Query.TAKE_WRITTEN, pagemap.walkEnd(), end(memory)));
      assertEquals(end(memory), pagemap.walkEnd());
    }
  }

  @Test
  void aFullArrayOfRegionsIsContinuedFromWalkEnd() {
    pagemap = own(Pagemap.open(3));
    MemorySegment memory = tracked(64);
    BitSet expected = new BitSet();
    for (int page = 1; page < 64; page += 5) {
      write(memory, page);
      expected.set(page);
    }
    assertEquals(3, pagemap.scan(PEEK, memory.address(), end(memory)));
    assertTrue(pagemap.walkEnd() < end(memory));
    assertEquals(expected, take(memory));
    assertEquals(set(), take(memory));
  }

  @Test
  void maxPagesStopsAScanAndLeavesTheRest() {
    MemorySegment memory = tracked(16);
    for (int page = 0; page < 16; page++) {
      write(memory, page);
    }
    Query some = new Query(3, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 5);
    assertEquals(1, pagemap.scan(some, memory.address(), end(memory)));
    assertEquals(memory.address() + 5 * Pages.SIZE, pagemap.end(0));
    assertEquals(memory.address() + 5 * Pages.SIZE, pagemap.walkEnd());
    BitSet rest = all(16);
    rest.clear(0, 5);
    assertEquals(rest, take(memory));
  }

  @Test
  void memoryThatIsNotRegisteredIsAnErrorOnlyWhenChecked() {
    MemorySegment memory = anonymous(8);
    write(memory, 1);
    write(memory, 2);
    // Kernels differ in whether untouched pages count as written here too.
    BitSet present = pages(PEEK, memory);
    present.and(set(1, 2));
    assertEquals(set(1, 2), present, "what is present counts as written");
    Query unchecked = new Query(PM_SCAN_WP_MATCHING, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 0);
    assertEquals(set(), pages(unchecked, memory), "skipped without a word");
    LinuxException refused = assertThrows(LinuxException.class, () -> take(memory));
    assertEquals(Errno.EPERM, refused.errno());
    assertTrue(refused.getMessage().contains("not all registered"), refused.getMessage());
    Query checked = new Query(PM_SCAN_CHECK_WPASYNC, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 0);
    assertEquals(Errno.EPERM, errno(() -> pages(checked, memory)));
  }

  @Test
  void aFailedScanHasAlreadyTakenWhatLayBeforeTheUnregisteredPart() {
    MemorySegment memory = anonymous(16);
    MemorySegment first = memory.asSlice(0, 8 * Pages.SIZE);
    track(first);
    write(first, 3);
    assertEquals(Errno.EPERM, errno(() -> take(memory)));
    assertEquals(set(), pages(PEEK, first), "protected again, and in no answer");
  }

  @Test
  void closingTheUserfaultfdEndsTheTracking() {
    MemorySegment memory = tracked(4);
    uffd.close();
    write(memory, 1);
    assertEquals(Errno.EPERM, errno(() -> take(memory)));
    assertThrows(ClosedException.class, () -> uffd.register(memory.address(), memory.byteSize()));
  }

  @Test
  void unregisteringEndsTheTracking() {
    MemorySegment memory = tracked(4);
    uffd.unregister(memory.address(), memory.byteSize());
    assertEquals(Errno.EPERM, errno(() -> take(memory)));
  }

  @Test
  void aHoleIsSkippedEvenWhenChecked() throws IOException {
    Mapping whole = Mapping.anonymous(16 * Pages.SIZE);
    MemorySegment memory = whole.segment();
    long hole = memory.address() + 4 * Pages.SIZE;
    long behind = memory.address() + 8 * Pages.SIZE;
    track(memory);
    write(memory, 1);
    write(memory, 5);
    write(memory, 9);
    assertEquals(0, Libc.munmap(hole, behind - hole));
    // Closing the mapping would also unmap what another thread of the JVM may have put in the hole.
    own(() -> Libc.munmap(memory.address(), hole - memory.address()));
    own(() -> Libc.munmap(behind, end(memory) - behind));
    BitSet found;
    try {
      found = take(memory);
    } catch (LinuxException e) {
      assumeTrue(isHole(hole, behind), "another thread mapped memory in the hole");
      throw e;
    }
    assertEquals(set(1, 9), found);
  }

  private static boolean isHole(long start, long end) throws IOException {
    try (var maps = Files.lines(Path.of("/proc/self/maps"))) {
      return maps.map(line -> line.split("[- ]", 3))
          .noneMatch(
              range ->
                  Long.parseUnsignedLong(range[0], 16) < end
                      && Long.parseUnsignedLong(range[1], 16) > start);
    }
  }

  @Test
  void discardingAnonymousMemoryIsAWrite() {
    MemorySegment memory = tracked(8);
    write(memory, 2);
    take(memory);
    assertEquals(0, Libc.madvise(memory.address() + 2 * Pages.SIZE, Pages.SIZE, MADV_DONTNEED));
    assertEquals(set(2), take(memory));
    assertEquals(0, memory.get(JAVA_BYTE, 2 * Pages.SIZE));
  }

  @Test
  void onlyStoresThroughTheRegisteredMappingOfAMemfdAreSeen() {
    Memfd memfd = own(Memfd.create("tracked", 8 * Pages.SIZE));
    MemorySegment memory = own(memfd.map()).segment();
    MemorySegment other = own(memfd.map()).segment();
    for (int page = 0; page < 8; page++) {
      write(memory, page);
    }
    track(memory);
    write(memory, 1);
    assertEquals(set(1), take(memory), "a store through the registered mapping");

    write(other, 2);
    assertEquals(set(), take(memory), "a store through another mapping");
    try (Arena arena = Arena.ofConfined()) {
      int number = memfd.fd().acquire();
      assertEquals(4, Libc.write(number, arena.allocate(4), 4));
      memfd.fd().release();
    }
    assertEquals(set(), take(memory), "write(2) to the file");
    long page4 = memory.address() + 4 * Pages.SIZE;
    assertEquals(0, Libc.madvise(page4, Pages.SIZE, MADV_DONTNEED));
    assertEquals(set(), take(memory), "a discarded page, whose bytes stay");
    assertEquals(0, Libc.madvise(page4, Pages.SIZE, MADV_REMOVE));
    assertEquals(0, memory.get(JAVA_BYTE, 4 * Pages.SIZE));
    assertEquals(set(), take(memory), "a hole punched into the file, whose bytes are gone");
  }

  @Test
  void aWriteSplitsAProtectedHugePage() {
    Mapping mapping = own(Mapping.anonymous(2 * HUGE));
    long aligned = (mapping.segment().address() + HUGE - 1) & -HUGE;
    MemorySegment memory = mapping.segment().asSlice(aligned - mapping.segment().address(), HUGE);
    Libc.madvise(memory.address(), HUGE, MADV_HUGEPAGE);
    memory.fill((byte) 1);
    Query kind = new Query(0, 0, 0, PAGE_IS_WRITTEN | PAGE_IS_HUGE, PAGE_IS_HUGE, 0);
    pagemap.scan(kind, memory.address(), end(memory));
    assumeTrue(
        pagemap.categories(0) == PAGE_IS_HUGE, "no transparent huge page was to be had just now");
    track(memory);
    write(memory, 77);
    assertEquals(set(77), take(memory));
  }

  @Test
  void protectionCanBeTakenAwaySoThatPagesCountAsWritten() {
    MemorySegment memory = tracked(8);
    uffd.writeProtect(memory.address() + 2 * Pages.SIZE, 3 * Pages.SIZE, false);
    assertEquals(set(2, 3, 4), pages(PEEK, memory));
    uffd.writeProtect(memory.address() + 2 * Pages.SIZE, 3 * Pages.SIZE, true);
    assertEquals(set(), take(memory));
  }

  @Test
  void aScanAfterCloseIsRefusedAndItsAnswerStaysReadable() {
    MemorySegment memory = tracked(4);
    write(memory, 1);
    assertEquals(1, pagemap.scan(Query.TAKE_WRITTEN, memory.address(), end(memory)));
    pagemap.close();
    assertEquals(memory.address() + Pages.SIZE, pagemap.start(0));
    assertThrows(ClosedException.class, () -> take(memory));
  }

  @Test
  void aScanAllocatesNoMoreThanItsCall() {
    MemorySegment memory = tracked(64);
    Runnable round =
        () -> {
          write(memory, 5);
          write(memory, 9);
          for (long at = memory.address(); at < end(memory); at = pagemap.walkEnd()) {
            int regions = pagemap.scan(Query.TAKE_WRITTEN, at, end(memory));
            for (int i = 0; i < regions; i++) {
              seen += pagemap.end(i) - pagemap.start(i);
            }
          }
        };
    long bytes = Allocations.perRun(round);
    assertTrue(bytes <= Allocations.PER_CALL, bytes + " bytes");
    assertTrue(seen > 0);
  }

  @Test
  void anUnknownCategoryIsRefused() {
    MemorySegment memory = tracked(4);
    Query unknown = new Query(0, 0, 1L << 40, 0, 0, 0);
    assertEquals(Errno.EINVAL, errno(() -> pages(unknown, memory)));
    assertEquals(Errno.EINVAL, errno(() -> pagemap.scan(PEEK, memory.address() + 1, end(memory))));
  }
}
