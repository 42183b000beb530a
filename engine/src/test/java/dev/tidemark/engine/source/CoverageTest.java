package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** A guest of which some pages nobody would report is refused, before anything is turned on. */
class CoverageTest {
  private static final long PAGES = 1000;
  private static final long PAGE = Pages.SIZE;

  private final Mapping memory = Mapping.anonymous(2 * PAGES * PAGE);
  private final RamBlock low = new RamBlock("pc.ram", part(0, PAGES));
  private final RamBlock high = new RamBlock("high", part(PAGES, PAGES));
  private final DirtyTracker tracker = new DirtyTracker(List.of(low, high));
  private final RamBlockLog lowLog = tracker.log(low);
  private final RamBlockLog highLog = tracker.log(high);

  private MemorySegment part(long page, long pages) {
    return memory.segment().asSlice(page * PAGE, pages * PAGE);
  }

  @AfterEach
  void close() {
    tracker.close();
    memory.close();
  }

  /** Covers a range and does nothing. */
  private static final class Range implements DirtySource {
    private final RamBlockLog log;
    private final long page;
    private final long count;
    private int starts;

    Range(RamBlockLog log, long page, long count) {
      this.log = log;
      this.page = page;
      this.count = count;
    }

    @Override
    public String name() {
      return "range";
    }

    @Override
    public void cover(Coverage coverage) {
      coverage.add(log, page, count);
    }

    @Override
    public void start() {
      starts++;
    }

    @Override
    public void sync() {}

    @Override
    public void markAll() {}

    @Override
    public void stop() {}

    @Override
    public void close() {}
  }

  private void assertRefused(String gaps) {
    var e = assertThrows(IllegalStateException.class, tracker::start);
    assertEquals(
        gaps
            + " are covered by no source: add one that covers them (for KVM: name their slot to"
            + " it), or say that the VMM marks them itself (coverByMarks)",
        e.getMessage());
    assertFalse(tracker.isTracking());
  }

  @Test
  void aGuestWithoutASourceIsRefused() {
    assertRefused("pages 0+1000 of block pc.ram, pages 0+1000 of block high");
  }

  @Test
  void eachRangeThatNoSourceCoversIsNamedAndNothingIsStarted() {
    Range first = new Range(lowLog, 0, 300);
    tracker.add(first);
    // In no order, overlapping, touching.
    tracker.add(new Range(lowLog, 500, 100));
    tracker.add(new Range(lowLog, 400, 150));
    tracker.add(new Range(lowLog, 410, 10));
    tracker.add(new Range(lowLog, 600, 400));
    tracker.add(new Range(highLog, 1, 998));
    assertRefused(
        "pages 300+100 of block pc.ram, pages 0+1 of block high, pages 999+1 of block high");
    assertEquals(0, first.starts);
    tracker.add(new Range(lowLog, 300, 100));
    tracker.coverByMarks(highLog, 0, 1);
    assertRefused("pages 999+1 of block high");
    tracker.coverByMarks(highLog, 999, 1);
    tracker.start();
    assertTrue(tracker.isTracking());
    assertEquals(1, first.starts);
  }

  @Test
  void manyRangesAreNotAllNamed() {
    for (int i = 0; i < 20; i++) {
      tracker.add(new Range(lowLog, 50 * i, 49));
    }
    var e = assertThrows(IllegalStateException.class, tracker::start);
    assertTrue(e.getMessage().contains("pages 399+1 of block pc.ram, and 13 more ranges,"));
  }

  @Test
  void whatJoinsWhileTrackingIsOnCoversToo() {
    tracker.coverByMarks(lowLog, 0, PAGES);
    tracker.coverByMarks(highLog, 0, PAGES);
    tracker.start();
    tracker.add(new Range(lowLog, 0, PAGES));
    tracker.stop();
    tracker.start();
  }

  @Test
  void aLogOfAnotherTrackerIsRefused() {
    RamBlock other = new RamBlock("pc.ram", part(0, PAGES));
    try (DirtyTracker stranger = new DirtyTracker(List.of(other))) {
      RamBlockLog log = stranger.log(other);
      assertThrows(IllegalArgumentException.class, () -> tracker.add(new Range(log, 0, PAGES)));
      assertThrows(IllegalArgumentException.class, () -> tracker.coverByMarks(log, 0, PAGES));
      assertThrows(IndexOutOfBoundsException.class, () -> tracker.coverByMarks(lowLog, 999, 2));
      assertEquals(List.of(), tracker.sourceNames());
    }
  }

  @Test
  void aSlotThatIsNotNamedIsRefused() {
    String missing = Kvm.missing().orElse(null);
    assumeTrue(missing == null, missing);
    try (Kvm kvm = Kvm.open();
        KvmVm vm = kvm.createVm();
        DirtyTracker guest = new DirtyTracker(List.of(low))) {
      RamBlockLog log = guest.log(low);
      vm.setUserMemoryRegion(0, 0, 0, 32 * PAGE, low.address());
      vm.setUserMemoryRegion(1, 0, 32 * PAGE, (PAGES - 32) * PAGE, low.address() + 32 * PAGE);
      guest.add(new KvmSlotLogSource(vm, List.of(new KvmSlot(0, log, 0, 32, 0, 0)), false));
      var e = assertThrows(IllegalStateException.class, guest::start);
      assertTrue(
          e.getMessage().startsWith("pages 32+968 of block pc.ram are covered by no source"));
      guest.add(
          new KvmSlotLogSource(
              vm, List.of(new KvmSlot(1, log, 32, PAGES - 32, 32 * PAGE, 0)), false));
      guest.start();
    }
  }

  @Test
  void blocksThatShareMemoryAreRefusedAtBothEnds() {
    List<RamBlock> blocks =
        List.of(new RamBlock("a", part(0, 100)), new RamBlock("b", part(50, 100)));
    var e = assertThrows(IllegalArgumentException.class, () -> new DirtyTracker(blocks));
    assertTrue(e.getMessage().endsWith("pages 50+50 of a are pages 0+50 of b"), e.getMessage());
    var inside = List.of(new RamBlock("inner", part(3, 2)), new RamBlock("outer", part(0, 100)));
    e = assertThrows(IllegalArgumentException.class, () -> new DirtyTracker(inside));
    assertTrue(e.getMessage().endsWith("pages 3+2 of outer are pages 0+2 of inner"));
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket socket = Socket.connect(listener.localAddress())) {
      e =
          assertThrows(
              IllegalArgumentException.class,
              () -> new StreamReader(socket, "toy", blocks, List.of()));
      assertTrue(e.getMessage().endsWith("pages 50+50 of a are pages 0+50 of b"), e.getMessage());
    }
    new DirtyTracker(List.of(high, low)).close();
  }

  @Test
  void memoryThatNoGuestCanHaveIsRefused() {
    var e =
        assertThrows(
            IllegalArgumentException.class, () -> new RamBlock("rom", part(0, 1).asReadOnly()));
    assertEquals("block rom: a guest's memory is not read-only", e.getMessage());
    MemorySegment gone;
    RamBlock block;
    try (Arena arena = Arena.ofShared()) {
      gone = arena.allocate(PAGE, PAGE);
      block = new RamBlock("gone", gone);
    }
    e = assertThrows(IllegalArgumentException.class, () -> new RamBlock("gone", gone));
    assertTrue(e.getMessage().matches("block gone: the arena of its 4096 bytes at 0x.* is closed"));
    assertThrows(IllegalArgumentException.class, () -> new DirtyTracker(List.of(block)));
    assertThrows(
        IllegalArgumentException.class,
        () -> new RamBlock("odd", memory.segment().asSlice(8, PAGE)));
  }
}
