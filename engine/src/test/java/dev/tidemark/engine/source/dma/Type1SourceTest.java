package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static dev.tidemark.engine.source.dma.LabDma.pagesOf;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.LabDevices;
import dev.tidemark.ffm.lab.LockedMemory;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.io.IOException;
import java.util.BitSet;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * A real type1 container, in the lab: with a PCI device, which pins nothing and so has written
 * everything, and with a mediated one, which writes nothing.
 */
@Tag("lab-vtd")
class Type1SourceTest {
  private static final long BASE = (1L << 24) / PAGE;
  private static final int PAGES = 1024;

  private VfioContainer container;
  private VfioGroup card;
  private VfioGroup mtty;
  private Mapping memory;
  private DirtyTracker tracker;
  private Type1Source source;
  private RamBlockLog log;

  @BeforeEach
  void open() throws IOException {
    container = VfioContainer.open();
    card = VfioGroup.open(LabDevices.pci().group());
    mtty = VfioGroup.open(LabDevices.mtty().group());
    memory = Mapping.anonymous(PAGES * PAGE);
  }

  @AfterEach
  void close() {
    if (tracker != null) {
      tracker.close();
    }
    card.close();
    mtty.close();
    container.close();
    memory.close();
  }

  private void join(VfioGroup... groups) {
    for (int i = 0; i < groups.length; i++) {
      groups[i].setContainer(container);
      if (i == 0) {
        container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      }
    }
  }

  private void track(Type1Source type1) {
    source = type1;
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    tracker.add(source);
    log = tracker.logs().getFirst();
    tracker.coverByMarks(log, 0, log.block().pages());
  }

  private void map(long at, long pages, long page, boolean writable) {
    source.map((BASE + at) * PAGE, pages * PAGE, log, page, writable);
  }

  private long unmap(long at, long pages) {
    return source.unmap((BASE + at) * PAGE, pages * PAGE) / PAGE;
  }

  private void start() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
  }

  private BitSet take() {
    tracker.sync();
    return harvest();
  }

  private BitSet harvest() {
    tracker.harvest();
    BitSet pages = pagesOf(log.epoch());
    tracker.commit();
    return pages;
  }

  @Test
  void aGroupThatOnlyEverSaysEverythingIsSentAtFirstAndAtLastAndNotInEachRound() {
    join(card);
    track(new Type1Source(container, new DmaMap()));
    assertTrue(source.canTrack());
    // An odd place in the block, a read-only mapping between, a hole, two mappings in one word.
    map(0, 3, 5, true);
    map(3, 2, 100, false);
    map(5, 4, 201, true);
    map(20, 1, 300, true);
    start();
    assertEquals(set(5, 6, 7, 201, 202, 203, 204, 300), take(), "the first answer is merged");
    assertEquals(8, tracker.pagesAtStop(0));
    assertEquals(set(), take());
    assertEquals(set(), take());
    tracker.lastSync();
    assertEquals(set(5, 6, 7, 201, 202, 203, 204, 300), harvest());
    // What goes now has been left out since.
    assertEquals(9, unmap(0, 9));
    assertEquals(set(5, 6, 7, 201, 202, 203, 204), take());
    assertEquals(1, tracker.pagesAtStop(0));
    assertEquals(7, source.unmapReport().wholePages());
    assertEquals(0, tracker.failures());
  }

  @Test
  void aMappingBeyondTheLockedMemoryIsRefusedAndTheRestGoesOn() throws InterruptedException {
    join(card);
    track(new Type1Source(container, new DmaMap()));
    map(0, 8, 8, true);
    start();
    // What was mapped with the privilege is counted too.
    LockedMemory.limit(
        16 * PAGE,
        () -> {
          LinuxException refused = assertThrows(LinuxException.class, () -> map(8, 9, 100, true));
          assertEquals(Errno.ENOMEM, refused.errno());
          assertTrue(refused.getMessage().contains("ulimit -l"), refused.getMessage());
          assertEquals(1, source.map().mappings());
          map(8, 8, 100, true);
        });
    BitSet expected = new BitSet();
    expected.set(8, 16);
    expected.set(100, 108);
    assertEquals(expected, take());
    assertEquals(16, unmap(0, 16));
    assertEquals(0, tracker.failures());
  }

  @Test
  void anUnmapTellsInOneCallWhatWasWritten() {
    join(card);
    track(new Type1Source(container, new DmaMap()));
    map(0, 3, 5, true);
    map(3, 2, 100, false);
    map(5, 100, 201, true);
    start();
    // Not asked before, so not yet known to be always dirty.
    assertEquals(105, unmap(0, 105));
    BitSet expected = set(5, 6, 7);
    expected.set(201, 301);
    assertEquals(expected, take());
    UnmapReport report = source.unmapReport();
    assertEquals(103, report.takenPages());
    assertEquals(0, report.wholePages());
    assertEquals(0, report.longestWindowNanos(), "there is no window");
  }

  @Test
  void aGroupThatWritesNothingHasNothingDirty() {
    join(mtty);
    track(new Type1Source(container, new DmaMap()));
    map(0, 64, 0, true);
    map(64, 64, 128, true);
    start();
    LogCounters before = log.counters();
    assertEquals(set(), take());
    assertEquals(0, tracker.pagesAtStop(0));
    LogCounters used = log.counters().since(before);
    assertEquals(1, used.queries());
    assertEquals(2, used.mergedWords(), "one pass over the answer");
    assertEquals(128, unmap(0, 128));
    assertEquals(set(), take());
    assertEquals(0, source.unmapReport().takenPages());
  }

  @Test
  void whenTheGroupThatSaysEverythingLeavesEverythingIsDirtyOnceMoreAndCountsThen() {
    join(mtty, card);
    track(new Type1Source(container, new DmaMap()));
    map(0, 4, 8, true);
    start();
    assertEquals(set(8, 9, 10, 11), take());
    assertEquals(set(), take());
    assertEquals(4, tracker.pagesAtStop(0));
    card.unsetContainer();
    // The kernel says everything once more for the group that left, then what there is.
    BitSet seen = take();
    seen.or(take());
    assertEquals(set(8, 9, 10, 11), seen);
    assertEquals(0, tracker.pagesAtStop(0));
    assertEquals(set(), take());
    // And when it comes back.
    card.setContainer(container);
    assertEquals(set(8, 9, 10, 11), take());
    assertEquals(set(), take());
    assertEquals(4, tracker.pagesAtStop(0));
  }

  @Test
  void callsAreCutWhereAMappingEndsSoThatTheKernelsBitmapIsLargeEnough() {
    join(card);
    track(new Type1Source(container, new DmaMap(), 8));
    for (int i = 0; i < 10; i++) {
      map(3 * i, 3, 100 + 3 * i, true);
    }
    assertThrows(IllegalArgumentException.class, () -> map(100, 9, 0, true));
    map(100, 8, 0, true);
    start();
    LogCounters before = log.counters();
    BitSet expected = new BitSet();
    expected.set(100, 130);
    expected.set(0, 8);
    assertEquals(expected, take());
    assertEquals(5 + 1, log.counters().since(before).queries(), "two mappings a call");
    assertEquals(38 * PAGE, source.unmapAll());
    assertEquals(6, source.unmapReport().unmaps());
    assertEquals(expected, take());
  }

  @Test
  void aContainerThatCannotTrackIsAlwaysDirty() {
    // An iommufd that plays container has no dirty tracking.
    try (Iommufd iommufd = Iommufd.open();
        VfioContainer played = VfioContainer.borrow(iommufd.fd().acquire())) {
      card.setContainer(played);
      played.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      track(new Type1Source(played, new DmaMap()));
      assertFalse(source.canTrack());
      map(0, 4, 8, true);
      start();
      assertEquals(set(), take());
      assertEquals(4, tracker.pagesAtStop(0));
      assertEquals(4, unmap(0, 4));
      assertEquals(set(8, 9, 10, 11), take());
      card.unsetContainer();
      iommufd.fd().release();
    }
  }

  @Test
  void anAnswerThatFailsCountsEverythingAsDirtyEachTime() {
    join(mtty);
    track(new Type1Source(container, new DmaMap()));
    map(0, 4, 8, true);
    map(4, 4, 20, false);
    start();
    // Behind the source's back: the kernel refuses to be asked then.
    container.setDirtyTracking(false);
    assertEquals(set(8, 9, 10, 11), take());
    assertEquals(set(8, 9, 10, 11), take());
    assertEquals(2, tracker.failures());
    assertTrue(tracker.lastFailure() instanceof LinuxException);
    // The unmap goes on without the answer.
    assertEquals(8, unmap(0, 8));
    assertEquals(1, source.unmapReport().failedQueries());
    assertEquals(set(8, 9, 10, 11), take());
  }

  @Test
  void aDeviceThatWritesIsTrackedExactlyAlsoOnceAnAlwaysDirtyGroupHasLeft() {
    try (VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PLAIN).group())) {
      join(group);
      try (DmaDevice device = DmaDevice.open(DmaDevice.PLAIN, group)) {
        track(new Type1Source(container, new DmaMap()));
        map(0, 300, 5, true);
        // No shorter than a word: of a short mapping inside of one linux-6.12's update_user_bitmap
        // keeps its neighbours' bits, and says them again for others. Too many, never too few.
        map(300, 64, 900, false);
        map(364, 100, 401, true);
        start();
        device.program(BASE * PAGE, 300 * PAGE, 8, 7);
        device.burst(100);
        device.write((BASE + 366) * PAGE, 1);
        BitSet written = LogLab.shifted(LogLab.written(device, BASE * PAGE, 300), 5);
        written.set(403);
        assertEquals(written, take());
        assertEquals(set(), take());
        // A group that pins nothing joins: everything, and then not in each round.
        BitSet all = LogLab.range(5, 305);
        all.set(401, 501);
        card.setContainer(container);
        assertEquals(all, take());
        device.write((BASE + 1) * PAGE, 1);
        assertEquals(set(), take());
        assertEquals(400, tracker.pagesAtStop(0));
        card.unsetContainer();
        BitSet seen = take();
        seen.or(take());
        assertEquals(all, seen);
        device.write((BASE + 2) * PAGE, 1);
        device.write((BASE + 365) * PAGE, 1);
        assertEquals(set(7, 402), take());
        // The unmap tells, in one call.
        device.write((BASE + 3) * PAGE, 1);
        device.write((BASE + 463) * PAGE, 1);
        long whole = source.unmapReport().wholePages();
        assertEquals(464, unmap(0, 464));
        assertEquals(set(8, 500), take());
        assertEquals(whole, source.unmapReport().wholePages());
        assertEquals(0, tracker.failures());
        tracker.stop();
      }
    }
  }

  @Test
  void aDeviceInAContainerCanLogToo() {
    try (VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PLAIN).group())) {
      join(group, card);
      try (DmaDevice device = DmaDevice.open(DmaDevice.PLAIN, group)) {
        tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
        var logs = new DeviceLogSource(container, new DmaMap(), DeviceLogSource.REPORT_WAITS);
        logs.add(device.vfio());
        tracker.add(logs);
        log = tracker.logs().getFirst();
        tracker.coverByMarks(log, 0, log.block().pages());
        logs.map(BASE * PAGE, PAGES * PAGE, log, 0, true);
        start();
        device.write((BASE + 2) * PAGE, 1);
        assertEquals(set(2), take(), "not everything, as of the container");
        device.write((BASE + 3) * PAGE, 1);
        assertEquals(PAGES * PAGE, logs.unmapAll());
        assertEquals(set(3), take());
        tracker.stop();
      }
    }
  }
}
