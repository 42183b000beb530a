package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
import static dev.tidemark.ffm.iommufd.LabIommu.ACCESS;
import static dev.tidemark.ffm.iommufd.LabIommu.IO_PAGE;
import static dev.tidemark.ffm.iommufd.LabIommu.START;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Allocations;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.lab.FailNth;
import dev.tidemark.ffm.lab.LabMemory;
import dev.tidemark.ffm.lab.MockIommu;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * What a dirty query refuses, what the kernel lets pass in silence, and what it does to the bitmap,
 * on Linux 6.12. The silent cases are pinned because callers are built around them.
 */
@Tag("lab-mock")
class HwptTest {
  private static final long PAGES = 64;

  private final LabIommu lab = new LabIommu(0);
  private final LabMemory memory = LabMemory.shared(PAGES * IO_PAGE);
  private final Ioas ioas = lab.iommufd.allocIoas();
  private final Mapping guarded = Mapping.guarded(64);
  private final MemorySegment bitmap = guarded.segment();
  private final Hwpt hwpt;

  HwptTest() {
    map(0, PAGES);
    hwpt = lab.tracking(ioas);
    hwpt.setDirtyTracking(true);
  }

  @AfterEach
  void close() {
    lab.close();
    memory.close();
    guarded.close();
  }

  private void map(long page, long pages) {
    ioas.mapFixed(
        START + page * IO_PAGE, memory.address() + page * IO_PAGE, pages * IO_PAGE, ACCESS);
  }

  private void dirty(long... pages) {
    for (long page : pages) {
      assertTrue(lab.mock.dirty(hwpt, START + page * IO_PAGE), "page " + page + " is not mapped");
    }
  }

  private void get(long page, long pages, MemorySegment into) {
    hwpt.getDirtyBitmap(START + page * IO_PAGE, pages * IO_PAGE, IO_PAGE, 0, into);
  }

  private long get(long page, long pages) {
    bitmap.fill((byte) 0);
    get(page, pages, bitmap);
    return word(0);
  }

  private long word(int index) {
    return bitmap.getAtIndex(JAVA_LONG, index);
  }

  private static void refused(int errno, Runnable call) {
    assertEquals(errno, assertThrows(LinuxException.class, call::run).errno());
  }

  @Nested
  class Refused {
    private void query(int errno, Hwpt asked, long iova, long length, long pageSize, int flags) {
      dirty(5);
      bitmap.fill((byte) 0);
      refused(errno, () -> asked.getDirtyBitmap(iova, length, pageSize, flags, bitmap));
      assertEquals(0, word(0));
      assertEquals(1 << 5, get(0, PAGES), "a refused query must not lose a page");
    }

    @Test
    void unknownFlags() {
      query(Errno.EOPNOTSUPP, hwpt, START, PAGES * IO_PAGE, IO_PAGE, 2);
    }

    @Test
    void aReservedFieldThatIsNotZero() {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment argument =
            Iommufd.argument(arena, IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT);
        argument.set(JAVA_INT, 4, hwpt.id());
        argument.set(JAVA_INT, 12, 1);
        assertEquals(
            -Errno.EOPNOTSUPP,
            Ioctl.tryCall(lab.iommufd.fd(), IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP, argument));
      }
    }

    @Test
    void aPageTableWithoutTracking() {
      try (Hwpt plain = lab.iommufd.allocHwpt(lab.device.deviceId(), ioas, 0)) {
        query(Errno.EOPNOTSUPP, plain, START, PAGES * IO_PAGE, IO_PAGE, 0);
        refused(Errno.EOPNOTSUPP, () -> plain.setDirtyTracking(true));
      }
    }

    @Test
    void anAutomaticPageTable() {
      Hwpt automatic = lab.iommufd.borrowHwpt(lab.device.hwptId());
      query(Errno.EOPNOTSUPP, automatic, START, PAGES * IO_PAGE, IO_PAGE, 0);
      refused(Errno.EOPNOTSUPP, () -> automatic.setDirtyTracking(true));
    }

    @Test
    void idsOfOtherThings() {
      for (int id : new int[] {ioas.id(), lab.device.deviceId(), lab.device.stdevId(), 12345}) {
        Hwpt stranger = lab.iommufd.borrowHwpt(id);
        query(Errno.ENOENT, stranger, START, PAGES * IO_PAGE, IO_PAGE, 0);
        refused(Errno.ENOENT, () -> stranger.setDirtyTracking(true));
      }
      assertThrows(IllegalArgumentException.class, () -> lab.iommufd.borrowHwpt(0));
    }

    @Test
    void noLength() {
      query(Errno.EINVAL, hwpt, START, 0, IO_PAGE, 0);
    }

    @Test
    void rangesThatAreNotAligned() {
      query(Errno.EINVAL, hwpt, START + 1024, IO_PAGE, 1024, 0);
      query(Errno.EINVAL, hwpt, START, 1024, 1024, 0);
      query(Errno.EINVAL, hwpt, START + IO_PAGE, 2 * IO_PAGE, 2 * IO_PAGE, 0);
      query(Errno.EINVAL, hwpt, START, 3 * IO_PAGE, 2 * IO_PAGE, 0);
    }

    @Test
    void rangesPastTheEnd() {
      query(Errno.EOVERFLOW, hwpt, -2 * IO_PAGE, 4 * IO_PAGE, IO_PAGE, 0);
    }

    @Test
    void whatTheKernelWouldMisread() {
      MemorySegment heap = MemorySegment.ofArray(new long[8]);
      MemorySegment small = bitmap.asSlice(0, 7);
      for (long pageSize : new long[] {0, -IO_PAGE, 3 * IO_PAGE, 6144}) {
        assertThrows(
            IllegalArgumentException.class,
            () -> hwpt.getDirtyBitmap(START, 3 * IO_PAGE, pageSize, 0, bitmap));
      }
      assertThrows(IllegalArgumentException.class, () -> get(0, PAGES, heap));
      assertThrows(IllegalArgumentException.class, () -> get(0, PAGES, small));
      get(0, PAGES - 8, small);
    }
  }

  @Nested
  class SilentlyIncomplete {
    @Test
    void withTrackingOffNothingIsReported() {
      dirty(1, 2, 3);
      hwpt.setDirtyTracking(false);
      assertEquals(0, get(0, PAGES));
    }

    @Test
    void enablingAgainForgets() {
      dirty(1, 2, 3);
      hwpt.setDirtyTracking(true);
      assertEquals(0, get(0, PAGES));
    }

    @Test
    void aBitmapThatCannotBeWrittenLosesWhatIsDirty() {
      try (LabMemory readOnly = LabMemory.readOnly(Pages.SIZE)) {
        dirty(1, 2, 3);
        get(0, PAGES, readOnly.segment());
        assertEquals(0, readOnly.segment().get(JAVA_LONG, 0));
        assertEquals(0, get(0, PAGES));
      }
      dirty(4, 5, 6);
      get(0, PAGES, behindTheBitmap());
      assertEquals(0, get(0, PAGES));
    }

    /** Memory of ours that is touched in advance needs none when the kernel pins it. */
    @Test
    void aBitmapThatThereIsNoMemoryForLosesWhatIsDirty() {
      try (LabMemory untouched = LabMemory.unreservedHuge(1);
          LabMemory all = LabMemory.allHuge()) {
        assertTrue(all.segment().byteSize() >= LabMemory.HUGE);
        dirty(1, 2, 3);
        get(0, PAGES, untouched.segment());
        assertEquals(0, get(0, PAGES));
        dirty(4);
        assertEquals(1 << 4, get(0, PAGES));
      }
      // It was for want of memory.
      try (LabMemory untouched = LabMemory.unreservedHuge(1)) {
        dirty(5);
        get(0, PAGES, untouched.segment());
        assertEquals(1 << 5, untouched.segment().get(JAVA_LONG, 0));
      }
    }

    @Test
    void aBitmapThatCannotBeWrittenIsNotNoticedWhenNothingIsDirty() {
      get(0, PAGES, behindTheBitmap());
    }

    /** The page that nobody can touch. */
    private MemorySegment behindTheBitmap() {
      return Libc.memory(bitmap.address() + bitmap.byteSize(), 64);
    }

    @Test
    void aHoleEndsTheQueryAndWhatLiesBehindStaysDirty() {
      hole();
      dirty(1, 9, 20);
      assertEquals(1 << 1, get(0, PAGES));
      assertEquals(0, get(0, PAGES));
      assertEquals(1 | 1 << 20 - 9, get(9, PAGES - 9));
    }

    @Test
    void aQueryThatBeginsInAHoleReportsNothing() {
      hole();
      dirty(20);
      assertEquals(0, get(8, PAGES - 8));
      assertEquals(1 << 20 - 9, get(9, PAGES - 9));
    }

    /** Page 8 alone is not mapped. */
    private void hole() {
      ioas.unmapAll();
      map(0, 8);
      map(9, PAGES - 9);
    }

    @Test
    void nothingMappedReportsNothing() {
      ioas.unmapAll();
      assertEquals(0, get(0, PAGES));
    }

    @Test
    void unmappingForgets() {
      dirty(1, 2, 3);
      ioas.unmapAll();
      map(0, PAGES);
      assertEquals(0, get(0, PAGES));
    }
  }

  @Nested
  class Bits {
    @Test
    void countFromTheQuerysAddress() {
      dirty(33);
      assertEquals(1 << 1, get(32, 32));
    }

    @Test
    void areOredIntoTheBitmap() {
      for (long offset : new long[] {0, 1, 2, 3, 7}) {
        bitmap.fill((byte) 0xf0);
        dirty(0, 2);
        get(0, 8, bitmap.asSlice(offset, 1));
        assertEquals((byte) 0xf5, bitmap.get(JAVA_BYTE, offset));
        for (long other = 0; other < 64; other++) {
          if (other != offset) {
            assertEquals((byte) 0xf0, bitmap.get(JAVA_BYTE, other));
          }
        }
      }
    }

    @Test
    void ofASmallerPageAreRepeated() {
      dirty(0, 2);
      hwpt.getDirtyBitmap(START, 8 * IO_PAGE, IO_PAGE / 2, 0, bitmap);
      assertEquals(0x33, word(0));
    }

    @Test
    void ofALargerPageStandForAny() {
      dirty(0, 2, 3, 6);
      hwpt.getDirtyBitmap(START, 8 * IO_PAGE, 2 * IO_PAGE, 0, bitmap);
      assertEquals(0b1011, word(0));
    }

    @Test
    void areReportedOnce() {
      dirty(7);
      assertEquals(1 << 7, get(0, PAGES));
      assertEquals(0, get(0, PAGES));
    }

    @Test
    void areReportedAgainAfterNoClear() {
      dirty(7);
      for (int i = 0; i < 3; i++) {
        bitmap.fill((byte) 0);
        hwpt.getDirtyBitmap(
            START, PAGES * IO_PAGE, IO_PAGE, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR, bitmap);
        assertEquals(1 << 7, word(0));
      }
      assertEquals(1 << 7, get(0, PAGES));
      assertEquals(0, get(0, PAGES));
    }

    @Test
    void belongToOnePageTable() {
      try (Hwpt second = lab.tracking(ioas)) {
        second.setDirtyTracking(true);
        dirty(1);
        assertTrue(lab.mock.dirty(second, START + 2 * IO_PAGE));
        assertEquals(1 << 1, get(0, PAGES));
        bitmap.fill((byte) 0);
        second.getDirtyBitmap(START, PAGES * IO_PAGE, IO_PAGE, 0, bitmap);
        assertEquals(1 << 2, word(0));
      }
    }

    @Test
    void ofAdjacentMappingsComeInOneCall() {
      ioas.unmapAll();
      for (long page = 0; page < PAGES; page += 2) {
        map(page, 2);
      }
      dirty(0, 3, 31, 32, 63);
      assertEquals(1L | 1L << 3 | 1L << 31 | 1L << 32 | 1L << 63, get(0, PAGES));
    }

    @Test
    void ofPagesThatAreMappedWhileTrackingStartClean() {
      ioas.unmapAll();
      map(0, PAGES);
      assertEquals(0, get(0, PAGES));
      dirty(9);
      assertEquals(1 << 9, get(0, PAGES));
    }

    @Test
    void ofDeviceWritesByAccessAreNotMade() {
      try (MockIommu.Access access = lab.mock.access(ioas);
          Arena arena = Arena.ofConfined()) {
        MemorySegment data = arena.allocateFrom("written by a device");
        access.write(START + 3 * IO_PAGE, data);
        assertEquals(-1, data.mismatch(memory.segment().asSlice(3 * IO_PAGE, data.byteSize())));
        assertEquals(0, get(0, PAGES));
      }
    }
  }

  @Nested
  class LargeEntries {
    private static final long HUGE = MockIommu.HUGE_PAGE_SIZE;
    private static final int PER_HUGE = (int) (HUGE / IO_PAGE);

    private final LabMemory huge = LabMemory.huge(4 * HUGE);

    @AfterEach
    void free() {
      huge.close();
    }

    private Hwpt mapped(LabIommu iommu, boolean largeAllowed) {
      Ioas own = iommu.iommufd.allocIoas();
      if (!largeAllowed) {
        own.setHugePages(false);
      }
      assertEquals(largeAllowed, own.getHugePages());
      own.mapFixed(START, huge.address(), 4 * HUGE, ACCESS);
      Hwpt table = iommu.tracking(own);
      table.setDirtyTracking(true);
      return table;
    }

    @Test
    void aPartOfAnEntryIsReportedPastTheEndOfTheBitmapUpToTheGuard() {
      try (LabIommu iommu = new LabIommu(MockIommu.MOCK_FLAGS_DEVICE_HUGE_IOVA)) {
        Hwpt table = mapped(iommu, true);
        // One bit is asked for, of an entry of 512.
        assertTrue(iommu.mock.dirty(table, START));
        MemorySegment last = bitmap.asSlice(56, 8);
        table.getDirtyBitmap(START, IO_PAGE, IO_PAGE, 0, last);
        assertEquals(-1, last.get(JAVA_LONG, 0), "the 64 bits before the guard page");
        assertEquals(0, word(6));

        assertTrue(iommu.mock.dirty(table, START));
        bitmap.fill((byte) 0);
        table.getDirtyBitmap(START, IO_PAGE, IO_PAGE, 0, bitmap.asSlice(0, 8));
        assertEquals(-1, word(0));
        assertEquals(-1, word(7), "written past a bitmap of one word");
      }
    }

    @Test
    void aQueryThatStartsInsideAnEntryLosesTheNextOnesStart() {
      try (LabIommu iommu = new LabIommu(MockIommu.MOCK_FLAGS_DEVICE_HUGE_IOVA);
          Mapping wide = Mapping.guarded(2 * PER_HUGE / 8)) {
        Hwpt table = mapped(iommu, true);
        assertTrue(iommu.mock.dirty(table, START + HUGE));
        table.getDirtyBitmap(START + IO_PAGE, 2 * HUGE - IO_PAGE, IO_PAGE, 0, wide.segment());
        long bit = PER_HUGE - 1;
        assertEquals(
            0,
            wide.segment().get(JAVA_BYTE, bit / 8) & 1 << bit % 8,
            "the first page of the second entry");
        wide.segment().fill((byte) 0);
        table.getDirtyBitmap(START, 2 * HUGE, IO_PAGE, 0, wide.segment());
        assertArrayEquals(new byte[2 * PER_HUGE / 8], wide.segment().toArray(JAVA_BYTE));
      }
    }

    @Test
    void withoutThemABitIsAPage() {
      try (LabIommu iommu = new LabIommu(MockIommu.MOCK_FLAGS_DEVICE_HUGE_IOVA)) {
        Hwpt table = mapped(iommu, false);
        assertTrue(iommu.mock.dirty(table, START + Pages.SIZE));
        table.getDirtyBitmap(START, 64 * Pages.SIZE, Pages.SIZE, 0, bitmap);
        assertEquals(1 << 1, word(0));
        assertEquals(0, word(1));
      }
    }
  }

  @Nested
  class Concurrency {
    private static final long MANY = 1 << 15;
    private static final int ROUNDS = 60;

    private final LabMemory large = LabMemory.shared(MANY * IO_PAGE);
    private final Mapping all = Mapping.anonymous(MANY / 8);

    private Hwpt mapped() {
      Ioas own = lab.iommufd.allocIoas();
      own.mapFixed(START, large.address(), MANY * IO_PAGE, ACCESS);
      Hwpt table = lab.tracking(own);
      table.setDirtyTracking(true);
      all.segment().fill((byte) -1);
      return table;
    }

    @AfterEach
    void free() {
      large.close();
      all.close();
    }

    @Test
    void takingWordsByExchangeWhileTheKernelOrsLosesNothing() throws Exception {
      Hwpt table = mapped();
      VarHandle words = JAVA_LONG.arrayElementVarHandle();
      try (Mapping shared = Mapping.guarded(MANY / 8)) {
        MemorySegment into = shared.segment();
        for (int round = 0; round < ROUNDS; round++) {
          long[] taken = new long[(int) (MANY / 64)];
          assertEquals(MANY, lab.mock.dirty(table, START, MANY * IO_PAGE, all.segment()));
          AtomicReference<Throwable> failure = new AtomicReference<>();
          Thread query =
              Thread.ofPlatform()
                  .uncaughtExceptionHandler((_, e) -> failure.set(e))
                  .start(() -> table.getDirtyBitmap(START, MANY * IO_PAGE, IO_PAGE, 0, into));
          while (query.isAlive()) {
            take(words, into, taken);
          }
          query.join();
          take(words, into, taken);
          assertEquals(null, failure.get());
          for (long word : taken) {
            assertEquals(-1, word);
          }
        }
      }
    }

    private void take(VarHandle words, MemorySegment from, long[] into) {
      for (int i = 0; i < into.length; i++) {
        into[i] |= (long) words.getAndSet(from, 0L, (long) i, 0L);
      }
    }

    @Test
    void queriesOfTwoPageTablesIntoOwnBitmapsLoseNothing() throws Exception {
      Hwpt[] tables = {mapped(), mapped()};
      try (Mapping first = Mapping.guarded(MANY / 8);
          Mapping second = Mapping.guarded(MANY / 8)) {
        MemorySegment[] bitmaps = {first.segment(), second.segment()};
        for (int round = 0; round < ROUNDS; round++) {
          Thread[] threads = new Thread[2];
          AtomicReference<Throwable> failure = new AtomicReference<>();
          for (int i = 0; i < 2; i++) {
            Hwpt table = tables[i];
            MemorySegment into = bitmaps[i].fill((byte) 0);
            assertEquals(MANY, lab.mock.dirty(table, START, MANY * IO_PAGE, all.segment()));
            threads[i] =
                Thread.ofPlatform()
                    .uncaughtExceptionHandler((_, e) -> failure.set(e))
                    .unstarted(() -> table.getDirtyBitmap(START, MANY * IO_PAGE, IO_PAGE, 0, into));
          }
          for (Thread thread : threads) {
            thread.start();
          }
          for (Thread thread : threads) {
            thread.join();
          }
          assertEquals(null, failure.get());
          for (MemorySegment result : bitmaps) {
            assertEquals(-1, result.mismatch(all.segment()));
          }
        }
      }
    }

    @Test
    void closeWaitsForAQueryAndEndsAllLaterOnes() throws Exception {
      try (Mapping own = Mapping.guarded(MANY / 8)) {
        for (int round = 0; round < ROUNDS; round++) {
          Hwpt table = lab.tracking(ioas);
          int id = table.id();
          table.setDirtyTracking(true);
          CountDownLatch begun = new CountDownLatch(1);
          AtomicReference<Throwable> end = new AtomicReference<>();
          Thread asking =
              Thread.ofPlatform()
                  .uncaughtExceptionHandler((_, e) -> end.set(e))
                  .start(
                      () -> {
                        while (true) {
                          table.getDirtyBitmap(START, PAGES * IO_PAGE, IO_PAGE, 0, own.segment());
                          begun.countDown();
                        }
                      });
          begun.await();
          table.close();
          try (Hwpt successor = lab.tracking(ioas)) {
            assertEquals(id, successor.id(), "the kernel gives an id again at once");
            asking.join();
            assertInstanceOf(ClosedException.class, end.get());
          }
        }
      }
    }
  }

  @Test
  void closedOwnersAskNothing() {
    hwpt.close();
    assertThrows(ClosedException.class, () -> get(0, PAGES));
    assertThrows(ClosedException.class, () -> hwpt.setDirtyTracking(true));
    assertThrows(ClosedException.class, hwpt::id);
    hwpt.close();
  }

  @Test
  void aPageTableInUseIsNotDestroyedUntilItsDeviceIsGone() {
    MockIommu.Device device = lab.mock.addDevice(hwpt, 0);
    refused(Errno.EBUSY, hwpt::close);
    assertThrows(ClosedException.class, hwpt::id);
    lab.mock.removeDevice(device);
    hwpt.close();
    ioas.close();
  }

  @Test
  void whateverFailsInTheKernelNoPageIsLost() {
    get(0, PAGES);
    Set<Integer> allowed = Set.of(Errno.ENOENT, Errno.ENOMEM);
    AtomicReference<LinuxException> failure = new AtomicReference<>();
    Runnable query =
        () -> {
          try {
            get(0, PAGES, bitmap);
          } catch (LinuxException e) {
            failure.set(e);
          }
        };
    FailNth.run(1000, query);
    int nth = 1;
    boolean reached;
    do {
      dirty(3, 60);
      bitmap.fill((byte) 0);
      failure.set(null);
      reached = FailNth.run(nth++, query);
      if (failure.get() != null) {
        assertTrue(allowed.contains(failure.get().errno()), failure.get().getMessage());
        assertTrue(reached);
      }
      long seen = word(0);
      assertEquals(1L << 3 | 1L << 60, seen | get(0, PAGES), "step " + (nth - 1));
    } while (reached && nth < 100);
    assertTrue(nth > 2 && nth < 100, "steps that could fail: " + (nth - 2));
    assertFalse(reached);
  }

  @Test
  void hotCallsAllocateNoMoreThanTheirSystemCall() {
    long query = Allocations.perRun(() -> get(0, PAGES, bitmap));
    assertTrue(query <= Allocations.PER_CALL, query + " bytes");
    long tracking = Allocations.perRun(() -> hwpt.setDirtyTracking(true));
    assertTrue(tracking <= Allocations.PER_CALL, tracking + " bytes");
    long iova = START + PAGES * IO_PAGE;
    long address = memory.address();
    long mapping =
        Allocations.perRun(
            () -> {
              ioas.mapFixed(iova, address, IO_PAGE, ACCESS);
              ioas.unmap(iova, IO_PAGE);
            });
    assertTrue(mapping <= 2 * Allocations.PER_CALL, mapping + " bytes");
  }
}
