package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.iommufd.IommufdUapi.IOMMU_IOAS_MAP_READABLE;
import static dev.tidemark.ffm.vfio.DmaLab.BASE;
import static dev.tidemark.ffm.vfio.DmaLab.PAGE;
import static dev.tidemark.ffm.vfio.DmaLab.PAGES;
import static dev.tidemark.ffm.vfio.DmaLab.allFrom;
import static dev.tidemark.ffm.vfio.DmaLab.at;
import static dev.tidemark.ffm.vfio.DmaLab.bits;
import static dev.tidemark.ffm.vfio.DmaLab.pages;
import static dev.tidemark.ffm.vfio.DmaLab.range;
import static dev.tidemark.ffm.vfio.DmaLab.refused;
import static dev.tidemark.ffm.vfio.DmaLab.says;
import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.LabMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.BitSet;
import java.util.List;
import java.util.Random;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The log of a device that writes: what the kernel checks, what it delivers, what it loses. */
@Tag("lab-mock")
class DmaLogTest {
  private static final long KIB64 = 64 << 10;
  private static final long MIB2 = 2 << 20;

  private final DmaLab lab = new DmaLab(DmaDevice.PLAIN);
  private final DmaDevice device = lab.device;
  private final VfioDevice vfio = lab.vfio;

  @AfterEach
  void close() {
    lab.close();
  }

  @Test
  void aReportHasThePagesWrittenAndClearsThem() {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    System.out.println("DmaLogTest: -Dtidemark.seed=" + seed);
    Random random = new Random(seed);
    lab.start();
    for (int round = 0; round < 20; round++) {
      BitSet expected = new BitSet();
      for (int i = random.nextInt(100); i > 0; i--) {
        int page = random.nextInt(PAGES);
        lab.write(page);
        expected.set(page);
      }
      int first = random.nextInt(PAGES / 8) * 8;
      lab.bitmap.segment().fill((byte) 0);
      vfio.dmaLoggingReport(BASE, first * PAGE + PAGE, PAGE, lab.bitmap.segment());
      vfio.dmaLoggingReport(
          at(first), (PAGES - first) * PAGE, PAGE, lab.bitmap.segment().asSlice(first / 8));
      assertEquals(expected, bits(lab.bitmap.segment()));
      assertEquals(new BitSet(), lab.report());
    }
  }

  @Test
  void aRangeOfHalfATebibyteIsReportedAtOnce() {
    long bytes = 1L << 39;
    vfio.dmaLoggingStart(PAGE, List.of(new DmaRange(0, bytes)));
    try (Mapping bitmap = Mapping.guarded(bytes / PAGE / 8)) {
      // On both sides of a page of the bitmap, and of what the kernel pins of it at a time.
      long[] islands = {0, 1L << 27, 1L << 36, 5L << 36, bytes - DmaLab.BYTES};
      for (long island : islands) {
        lab.ioas.mapFixed(island, lab.memory.segment().address(), DmaLab.BYTES, DmaLab.ACCESS);
        device.write(island, 1);
        device.write(island + DmaLab.BYTES - PAGE, 1);
      }
      vfio.dmaLoggingReport(0, bytes, PAGE, bitmap.segment());
      BitSet expected = new BitSet();
      for (long island : islands) {
        expected.set((int) (island / PAGE));
        expected.set((int) (island / PAGE) + PAGES - 1);
      }
      assertEquals(expected, bits(bitmap.segment()));
    }
  }

  @Test
  void bitsAreAddedToWhatIsThere() {
    lab.start();
    lab.write(3, 64);
    lab.bitmap.segment().setAtIndex(JAVA_LONG, 0, 0x80);
    lab.bitmap.segment().setAtIndex(JAVA_LONG, 2, -1);
    vfio.dmaLoggingReport(BASE, 128 * PAGE, PAGE, lab.bitmap.segment());
    assertEquals(0x88, lab.bitmap.segment().getAtIndex(JAVA_LONG, 0));
    assertEquals(1, lab.bitmap.segment().getAtIndex(JAVA_LONG, 1));
    assertEquals(-1, lab.bitmap.segment().getAtIndex(JAVA_LONG, 2));
  }

  @Test
  void writesAreRealAndReadsAreNone() {
    lab.start();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment text = arena.allocateFrom("over the edge of a page");
      device.write(at(5) - 4, text);
      MemorySegment seen = lab.memory.segment().asSlice(5 * PAGE - 4, text.byteSize());
      assertEquals(-1, text.mismatch(seen));
      assertEquals(pages(4, 5), lab.report());
      MemorySegment read = arena.allocate(text.byteSize());
      device.read(at(5) - 4, read);
      assertEquals(-1, text.mismatch(read));
      assertEquals(new BitSet(), lab.report());
    }
    assertEquals(pages(4, 5), lab.written());
  }

  @Test
  void theProgramIsTheSameForTheSameSeed() {
    byte[][] seen = new byte[2][];
    for (int i = 0; i < 2; i++) {
      lab.memory.segment().fill((byte) 0);
      device.clear();
      device.program(BASE, 64 * PAGE, 24, 99);
      device.burst(200);
      assertEquals(200, device.writes());
      seen[i] = lab.memory.segment().asSlice(0, 64 * PAGE).toArray(JAVA_BYTE);
    }
    assertTrue(lab.written().cardinality() > 40);
    assertEquals(-1, MemorySegment.ofArray(seen[0]).mismatch(MemorySegment.ofArray(seen[1])));
  }

  @Test
  void featuresAreThere() {
    for (int feature : new int[] {6, 7, 8}) {
      assertTrue(vfio.probeFeature(feature));
    }
    assertTrue(vfio.probeFeature(VFIO_DEVICE_FEATURE_DMA_LOGGING_START | VFIO_DEVICE_FEATURE_SET));
    assertFalse(vfio.probeFeature(VFIO_DEVICE_FEATURE_DMA_LOGGING_START | VFIO_DEVICE_FEATURE_GET));
    assertFalse(
        vfio.probeFeature(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | VFIO_DEVICE_FEATURE_SET));
    assertFalse(vfio.probeFeature(VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP | VFIO_DEVICE_FEATURE_GET));
  }

  @Test
  void startsAreCheckedByTheKernel() {
    refused(Errno.EINVAL, () -> vfio.dmaLoggingStart(PAGE, List.of()));
    List<DmaRange> many = LongStream.range(0, 257).mapToObj(i -> range(2 * i, 1)).toList();
    says("fewer ranges", refused(Errno.E2BIG, () -> vfio.dmaLoggingStart(PAGE, many)));
    for (DmaRange wrong :
        List.of(new DmaRange(BASE + 8, PAGE), new DmaRange(BASE, PAGE + 8), range(3, 2))) {
      String message =
          refused(
              Errno.EINVAL,
              () -> vfio.dmaLoggingStart(PAGE, List.of(wrong, range(0, 1), range(4, 4))));
      says("overlap", message);
    }
    says(
        "2^64",
        refused(
            Errno.EOVERFLOW,
            () -> vfio.dmaLoggingStart(PAGE, List.of(new DmaRange(-2 * PAGE, 2 * PAGE)))));
    assertEquals(0, device.logging());

    vfio.dmaLoggingStart(PAGE, many.subList(0, 256));
    vfio.dmaLoggingStop();
    vfio.dmaLoggingStop();
    vfio.dmaLoggingStart(PAGE, List.of(new DmaRange(0, -PAGE)));
    lab.write(7);
    assertEquals(pages(7), lab.report(0, 64));
    says("on already", refused(Errno.EINVAL, lab::start));
    assertEquals(PAGE, device.logging(), "a second start changes nothing");
    vfio.dmaLoggingStop();
    says("not on", refused(Errno.EINVAL, lab::report));
  }

  private int rawStart(MemorySegment feature) {
    return Ioctl.tryCall(vfio.fd(), VFIO_DEVICE_FEATURE, feature);
  }

  private static void fill(MemorySegment feature, long ranges) {
    feature.set(JAVA_INT, 0, 32);
    feature.set(JAVA_INT, 4, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START);
    feature.set(JAVA_LONG, 8, PAGE);
    feature.set(JAVA_INT, 16, 1);
    feature.set(JAVA_LONG, 24, ranges);
  }

  @Test
  void startsWithBadMemoryLeaveTheLogOff() {
    try (Arena arena = Arena.ofConfined();
        LabMemory control = LabMemory.shared(PAGE)) {
      MemorySegment ranges = arena.allocate(16, 8);
      ranges.set(JAVA_LONG, 0, BASE);
      ranges.set(JAVA_LONG, 8, PAGE);
      fill(control.segment(), 8);
      assertEquals(-Errno.EFAULT, rawStart(control.segment()));
      fill(control.segment(), ranges.address());
      control.segment().set(JAVA_INT, 0, 24);
      assertEquals(-Errno.EINVAL, rawStart(control.segment()));
      fill(control.segment(), ranges.address());
      control.protect(false);
      assertEquals(-Errno.EFAULT, rawStart(control.segment()));
      assertEquals(0, device.logging(), "the kernel took the start back");
      control.protect(true);
      assertEquals(0, rawStart(control.segment()));
    }
  }

  @Test
  void aDriverThatRefusesIsHeard() {
    device.refuseLogging(Errno.ENOSPC);
    says("0x400000 bytes at 0x1000000", refused(Errno.ENOSPC, lab::start));
    device.refuseLogging(0);
    lab.start();
  }

  @Test
  void thePageSizeIsAWishAndTheAnswerTheTruth() {
    long[][] table = {
      {1, PAGE},
      {512, PAGE},
      {PAGE, PAGE},
      {8192, PAGE},
      {KIB64, KIB64},
      {1 << 20, KIB64},
      {MIB2, MIB2},
      {2 * MIB2, MIB2}
    };
    for (long[] row : table) {
      assertEquals(row[1], vfio.dmaLoggingStart(row[0], List.of(range(0, PAGES))), row[0] + "");
      vfio.dmaLoggingStop();
    }
    device.trackIn(MIB2);
    assertEquals(MIB2, vfio.dmaLoggingStart(PAGE, List.of(range(0, 1), range(16, 1))));
    lab.write(0);
    assertEquals(pages(0), lab.report(16, 1), "a range that nobody wrote");
    assertThrows(
        IllegalArgumentException.class,
        () -> vfio.dmaLoggingStart(12288, List.of(new DmaRange(0, 12288))));
  }

  @Test
  void thePageOfAReportIsAnother() {
    device.trackIn(MIB2);
    vfio.dmaLoggingStart(PAGE, List.of(range(0, PAGES)));
    int[][] table = {{4096, 512}, {65536, 32}, {2 << 20, 1}, {4 << 20, 1}};
    for (int[] row : table) {
      lab.write(700);
      BitSet seen = lab.report(BASE, DmaLab.BYTES, row[0]);
      assertEquals(row[1], seen.cardinality());
      assertTrue(seen.get((int) (700 * PAGE / row[0])));
      assertEquals(new BitSet(), lab.report());
    }
    vfio.dmaLoggingStop();
    device.trackIn(PAGE);
    lab.start();
    lab.write(3, 20);
    assertEquals(pages(0, 1), lab.report(BASE, 64 * PAGE, KIB64));
    lab.write(3, 20);
    // Bit 0 is where the report begins, whether that is a multiple of its page or not.
    assertEquals(pages(0, 1), lab.report(at(2), 32 * PAGE, KIB64));
    assertThrows(IllegalArgumentException.class, () -> lab.report(BASE, 64 * PAGE, 2048));
    assertThrows(IllegalArgumentException.class, () -> lab.report(BASE, 0, PAGE));
    says("2^64", refused(Errno.EOVERFLOW, () -> lab.report(-PAGE, 2 * PAGE, PAGE)));
  }

  @Test
  void aTrackedPageThatIsAskedForInPartStaysDirty() {
    device.trackIn(KIB64);
    vfio.dmaLoggingStart(PAGE, List.of(range(0, PAGES)));
    lab.write(0, 17);
    assertEquals(allFrom(0, 18), lab.report(4, 18));
    assertEquals(allFrom(0, 32), lab.report(0, 32));
    assertEquals(new BitSet(), lab.report());
  }

  @Test
  void aDeviceThatDoesNotClipWritesPastTheBitmapAndLosesWhatItIsAskedInTheMiddle() {
    device.trackIn(MIB2);
    device.clip(false);
    vfio.dmaLoggingStart(PAGE, List.of(range(0, PAGES)));
    lab.write(9);
    lab.bitmap.segment().fill((byte) 0);
    vfio.dmaLoggingReport(BASE, 64 * PAGE, PAGE, lab.bitmap.segment().asSlice(0, 8));
    assertEquals(allFrom(0, 512), bits(lab.bitmap.segment()), "448 of them past the end");
    lab.write(9);
    assertEquals(new BitSet(), lab.report(64, 64));
    assertEquals(new BitSet(), lab.report(), "gone, and no error said so");
    lab.write(9);
    assertEquals(allFrom(0, 512), lab.report(0, 512), "aligned as the start said, it is exact");
  }

  @Test
  void whatIsOutsideTheRangesDependsOnTheDriver() {
    vfio.dmaLoggingStart(PAGE, List.of(range(0, 16), range(32, 16)));
    lab.write(1, 20, 33);
    assertEquals(pages(1, 33), lab.report(0, 64));
    device.strict(true);
    lab.write(1, 33);
    says("inside one range", refused(Errno.EINVAL, () -> lab.report(0, 64)));
    refused(Errno.EINVAL, () -> lab.report(0, 17));
    assertEquals(pages(1), lab.report(0, 16));
    assertEquals(pages(1), lab.report(32, 16));
    vfio.dmaLoggingStop();
    device.strict(false);
    device.maxRanges(1);
    vfio.dmaLoggingStart(PAGE, List.of(range(0, 16), range(32, 16)));
    lab.write(20);
    assertEquals(pages(20), lab.report(0, 64), "ranges were merged, with the hole");
  }

  @Test
  void bitsForMemoryThatCannotBeWrittenAreLostWithoutAWord() {
    lab.start();
    try (LabMemory readOnly = LabMemory.readOnly(PAGE);
        LabMemory half = LabMemory.shared(2 * PAGE)) {
      device.program(BASE, 64 * PAGE, 8, 1);
      lab.write(LongStream.range(0, 64).toArray());
      vfio.dmaLoggingReport(BASE, 64 * PAGE, PAGE, readOnly.segment());
      assertEquals(0, lab.report(0, 64).cardinality(), "read-only memory");

      lab.write(LongStream.range(0, PAGES).toArray());
      half.forbidFrom(PAGE);
      MemorySegment across = half.segment().asSlice(PAGE - 64, 128);
      vfio.dmaLoggingReport(BASE, DmaLab.BYTES, PAGE, across);
      assertEquals(allFrom(0, 512), bits(across.asSlice(0, 64)));
      assertEquals(0, lab.report().cardinality(), "half of it gone");
    }
    try (LabMemory gone = LabMemory.shared(PAGE)) {
      lab.write(1, 2, 3);
      gone.forbidFrom(0);
      vfio.dmaLoggingReport(BASE, 64 * PAGE, PAGE, gone.segment());
      assertEquals(0, lab.report(0, 64).cardinality(), "no memory at all");
    }
  }

  @Test
  void anErrorInTheMiddleComesAfterSomeBits() {
    lab.start();
    lab.write(LongStream.range(0, 512).toArray());
    device.failReport(1, 192);
    says("counts as dirty", refused(Errno.EIO, lab::report));
    assertEquals(allFrom(0, 192), bits(lab.bitmap.segment()));
    assertEquals(allFrom(192, 512), lab.report());
    lab.write(1);
    device.failReport(2, 0);
    assertEquals(pages(1), lab.report());
    lab.write(2);
    refused(Errno.EIO, lab::report);
    assertEquals(0, bits(lab.bitmap.segment()).cardinality());
    assertEquals(pages(2), lab.report());
  }

  @Test
  void aMarkThatIsDroppedShows() {
    lab.start();
    device.dropEvery(10);
    lab.write(LongStream.range(0, 100).toArray());
    assertEquals(10, device.dropped());
    BitSet missing = lab.written();
    missing.andNot(lab.report());
    assertEquals(10, missing.cardinality());
  }

  @Test
  void twoDevicesAreReportedOneAfterTheOtherIntoOneBitmap() {
    try (DmaDevice second = DmaDevice.open(DmaDevice.STOP_COPY, lab.iommufd)) {
      second.vfio().attach(lab.ioas);
      lab.start();
      second.vfio().dmaLoggingStart(PAGE, List.of(range(0, PAGES)));
      lab.write(1, 2, 3);
      second.write(at(3), 3);
      second.write(at(4), 4);
      lab.report();
      second.vfio().dmaLoggingReport(BASE, DmaLab.BYTES, PAGE, lab.bitmap.segment());
      assertEquals(pages(1, 2, 3, 4), bits(lab.bitmap.segment()));
    }
  }

  @Test
  void twoThreadsThatReportShareTheBits() throws InterruptedException {
    lab.start();
    BitSet[] seen = {new BitSet(), new BitSet()};
    for (int round = 0; round < 20; round++) {
      lab.write(LongStream.range(0, 256).map(i -> i * 3 % 512).toArray());
      BitSet expected = lab.written();
      Thread[] threads = new Thread[2];
      for (int i = 0; i < 2; i++) {
        int me = i;
        threads[i] =
            new Thread(
                () -> {
                  try (Arena arena = Arena.ofConfined()) {
                    MemorySegment own = arena.allocate(64, 64);
                    vfio.dmaLoggingReport(BASE, 512 * PAGE, PAGE, own);
                    seen[me] = bits(own);
                  }
                });
        threads[i].start();
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertFalse(seen[0].intersects(seen[1]), "delivered twice");
      seen[0].or(seen[1]);
      assertEquals(expected, seen[0]);
    }
  }

  @Test
  void theLogOutlivesTheMapping() {
    lab.start();
    lab.write(LongStream.range(0, 1000).toArray());
    assertEquals(DmaLab.BYTES, lab.ioas.unmap(BASE, DmaLab.BYTES));
    refused(Errno.ENOENT, () -> lab.write(1001));
    assertEquals(Errno.ENOENT, device.lastError());
    BitSet seen = lab.report();
    seen.clear(1001);
    assertEquals(allFrom(0, 1000), seen);
    lab.map();
    lab.write(1002);
    assertEquals(pages(1002), lab.report());
  }

  /** A thread whose write has reached the memory and waits with its mark. */
  private Thread heldWrite(long page) throws InterruptedException {
    device.holdMarks();
    Thread thread = new Thread(() -> lab.write(page));
    thread.start();
    while (device.inFlight() == 0) {
      assertTrue(thread.isAlive(), "the write did not wait");
      Thread.sleep(1);
    }
    return thread;
  }

  @Test
  void aReportThatDoesNotWaitForMarksMissesWhatWasUnmapped() throws InterruptedException {
    lab.start();
    device.quiesce(false);
    Thread writer = heldWrite(77);
    assertEquals(77, lab.memory.segment().get(JAVA_LONG, 77 * PAGE));
    lab.ioas.unmap(BASE, DmaLab.BYTES);
    assertEquals(new BitSet(), lab.report(), "unmapped, reported, and still missing");
    device.releaseMarks();
    writer.join();
    assertEquals(pages(77), lab.report());
  }

  @Test
  void aReportThatWaitsForMarksHasWhatWasUnmapped() throws InterruptedException {
    lab.start();
    Thread writer = heldWrite(78);
    lab.ioas.unmap(BASE, DmaLab.BYTES);
    BitSet[] seen = new BitSet[1];
    Thread reporter = new Thread(() -> seen[0] = lab.report());
    reporter.start();
    device.releaseMarks();
    reporter.join();
    writer.join();
    assertEquals(pages(78), seen[0]);
  }

  @Test
  void theLogOutlivesTheAttachment() {
    lab.start();
    lab.write(5);
    vfio.detach();
    refused(Errno.ENOENT, () -> lab.write(6));
    BitSet seen = lab.report();
    assertTrue(seen.get(5));
    vfio.attach(lab.ioas);
    assertEquals(PAGE, device.logging());
    lab.write(7);
    assertEquals(pages(7), lab.report());
  }

  @Test
  void dmaIsRefusedWhereTheMemoryIsGoneOrReadOnly() {
    try (LabMemory gone = LabMemory.shared(PAGE);
        LabMemory shared = LabMemory.shared(PAGE);
        Arena arena = Arena.ofConfined()) {
      long hole = at(2 * PAGES);
      lab.ioas.mapFixed(hole, gone.address(), PAGE, DmaLab.ACCESS);
      gone.forbidFrom(0);
      refused(Errno.EFAULT, () -> device.write(hole, 1));
      assertEquals(PAGE, lab.ioas.unmap(hole, PAGE));
      lab.ioas.mapFixed(hole, shared.address(), PAGE, IOMMU_IOAS_MAP_READABLE);
      refused(Errno.EPERM, () -> device.write(hole, 1));
      device.read(hole, arena.allocate(8));
      assertEquals(2, device.errors());
      lab.ioas.unmap(hole, PAGE);

      vfio.detach();
      lab.ioas.mapFixed(hole + 3, shared.address() + 3, 100, DmaLab.ACCESS);
      says("whole pages", refused(Errno.EADDRINUSE, () -> vfio.attach(lab.ioas)));
      lab.ioas.unmapAll();
      vfio.attach(lab.ioas);
    }
  }

  @Test
  void aCopyMadeByReportsIsWhatTheDeviceWrote() throws InterruptedException {
    assertEquals(0, differing(0));
    assertTrue(differing(20) > 0, "a device that drops marks went unnoticed");
  }

  /** Copies memory as a migration does while the device writes; how many pages differ then. */
  private int differing(int drop) throws InterruptedException {
    lab.memory.segment().fill((byte) 0);
    device.clear();
    lab.start();
    device.dropEvery(drop);
    MemorySegment copy = MemorySegment.ofArray(new byte[(int) DmaLab.BYTES]);
    device.program(BASE, DmaLab.BYTES, 8, System.nanoTime());
    device.run(3000);
    while (device.writes() < 600) {
      copyDirty(copy);
      Thread.sleep(5);
    }
    device.pause();
    copyDirty(copy);
    vfio.dmaLoggingStop();
    int differing = 0;
    for (int page = 0; page < PAGES; page++) {
      if (copy.asSlice(page * PAGE, PAGE).mismatch(lab.memory.segment().asSlice(page * PAGE, PAGE))
          >= 0) {
        differing++;
      }
    }
    return differing;
  }

  private void copyDirty(MemorySegment copy) {
    BitSet dirty = lab.report();
    for (int page = dirty.nextSetBit(0); page >= 0; page = dirty.nextSetBit(page + 1)) {
      MemorySegment.copy(lab.memory.segment(), page * PAGE, copy, page * PAGE, PAGE);
    }
  }

  @Test
  void aDeviceIsClosedWithItsLogOn() {
    lab.start();
    lab.write(1);
    device.program(BASE, DmaLab.BYTES, 8, 1);
    device.run(0);
    device.close();
    try (DmaDevice again = DmaDevice.open(DmaDevice.PLAIN, lab.iommufd)) {
      assertEquals(0, again.logging());
      assertFalse(again.isRunning());
      again.vfio().attach(lab.ioas);
      again.vfio().dmaLoggingStart(PAGE, List.of(range(0, PAGES)));
      lab.bitmap.segment().fill((byte) 0);
      again.vfio().dmaLoggingReport(BASE, DmaLab.BYTES, PAGE, lab.bitmap.segment());
      assertEquals(new BitSet(), bits(lab.bitmap.segment()));
    }
  }

  @Test
  void aResetKeepsTheLog() {
    lab.start();
    lab.write(4);
    vfio.reset();
    assertEquals(pages(4), lab.report());
  }

  @Test
  void aDeviceWithoutMigrationSaysSo() {
    assertEquals(0, vfio.migrationFlags());
    for (int feature : new int[] {1, 2, 9}) {
      assertFalse(vfio.probeFeature(feature));
    }
    says("cannot migrate", refused(Errno.ENOTTY, vfio::migDeviceState));
    refused(Errno.ENOTTY, vfio::migDataSize);
    refused(Errno.ENOTTY, () -> vfio.setMigDeviceState(VFIO_DEVICE_STATE_STOP));
  }
}
