package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmConstants;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** When KVM's log is cleared: not before it must be, never after a page was read. */
class KvmSlotLogSourceTest {
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final long PAGES = 2048;

  /** Where slots begin: not all at a word of the block's bitmap. */
  private static final long[] STARTS = {0, 100, 704, 1029};

  private static final int FIRST_SLOT = 2;
  private static final int CLEAR_PAGES = 64;

  static {
    System.out.println("KvmSlotLogSourceTest: -Dtidemark.seed=" + SEED);
  }

  private final SplittableRandom random = new SplittableRandom(SEED);
  private final List<KvmSlot> slots = new ArrayList<>();
  private Mapping memory;
  private Mapping copy;
  private VcpuWriter vcpu;
  private DirtyTracker tracker;
  private long word = 1;

  @BeforeEach
  void setUp() {
    String missing = Kvm.missing().orElse(null);
    assumeTrue(missing == null, missing);
    memory = Mapping.anonymous(PAGES * Pages.SIZE);
    copy = Mapping.anonymous(PAGES * Pages.SIZE);
    vcpu = new VcpuWriter(memory.segment(), false);
    assumeTrue(
        (vcpu.vm.checkExtension(KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
                & KvmConstants.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
            != 0,
        "no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    setRegion(VcpuWriter.SLOT, 0, 0);
    for (int i = 0; i < STARTS.length; i++) {
      long pages = (i + 1 < STARTS.length ? STARTS[i + 1] : PAGES) - STARTS[i];
      setRegion(FIRST_SLOT + i, STARTS[i], pages);
      slots.add(
          new KvmSlot(
              FIRST_SLOT + i,
              log(),
              STARTS[i],
              pages,
              VcpuWriter.GUEST_ADDRESS + (STARTS[i] << Pages.SHIFT),
              0));
    }
  }

  private void setRegion(int slot, long firstPage, long pages) {
    vcpu.vm.setUserMemoryRegion(
        slot,
        0,
        VcpuWriter.GUEST_ADDRESS + (firstPage << Pages.SHIFT),
        pages << Pages.SHIFT,
        memory.segment().address() + (firstPage << Pages.SHIFT));
  }

  @AfterEach
  void tearDown() {
    if (memory != null) {
      tracker.close();
      vcpu.close();
      memory.close();
      copy.close();
    }
  }

  private RamBlockLog log() {
    return tracker.logs().getFirst();
  }

  /** Tracks, with nothing dirty. */
  private void track(boolean manual) {
    tracker.add(new KvmSlotLogSource(vcpu.vm, slots, manual, CLEAR_PAGES));
    tracker.start();
    tracker.sync();
    send(Order.PROTECTED);
    assertEquals(0, harvestAfterSync());
  }

  private long harvestAfterSync() {
    tracker.sync();
    return takeAway();
  }

  private long takeAway() {
    long pages = tracker.harvest();
    tracker.commit();
    return pages;
  }

  private void write(long first, long count) {
    vcpu.write(first, count, word++);
  }

  private void copy(long first, long count) {
    MemorySegment.copy(
        memory.segment(),
        first << Pages.SHIFT,
        copy.segment(),
        first << Pages.SHIFT,
        count << Pages.SHIFT);
  }

  /** What is done with a page first. */
  private enum Order {
    PROTECTED,
    PROTECTED_THEN_READ_AMID_WRITES,
    READ_THEN_PROTECTED_AMID_WRITES
  }

  /** Sends the fill plane's pages by pieces, as a migration does. */
  private long send(Order order) {
    long pages = tracker.harvest();
    RunCursor runs = log().epoch().runs();
    for (int found; (found = runs.batch()) > 0; ) {
      for (int run = 0; run < found; run++) {
        long end = runs.start(run) + runs.length(run);
        for (long page = runs.start(run); page < end; page += 37) {
          send(order, page, Math.min(37, end - page));
        }
      }
    }
    tracker.commit();
    return pages;
  }

  private void send(Order order, long page, long count) {
    boolean amid = order != Order.PROTECTED;
    if (order == Order.READ_THEN_PROTECTED_AMID_WRITES) {
      copy(page, count);
    }
    if (amid) {
      writeSome(page, count);
    }
    tracker.protect(log(), page, count);
    if (order != Order.READ_THEN_PROTECTED_AMID_WRITES) {
      if (amid) {
        writeSome(page, count);
      }
      copy(page, count);
    }
    if (amid) {
      writeSome(page, count);
    }
  }

  /** Of the pages on their way, or of any. */
  private void writeSome(long page, long count) {
    if (random.nextInt(3) == 0) {
      write(page + random.nextLong(count), 1);
    } else if (random.nextInt(3) == 0) {
      long first = random.nextLong(PAGES - 20);
      write(first, 1 + random.nextInt(20));
    }
  }

  private long lostAfterAWalk(Order order) {
    track(true);
    for (int round = 0; round < 20 * EFFORT; round++) {
      tracker.syncUnprotected();
      send(order);
      long first = random.nextLong(PAGES);
      write(first, 1 + random.nextLong(PAGES - first));
      if (random.nextInt(4) == 0) {
        // Given back half sent.
        tracker.syncUnprotected();
        tracker.harvest();
        tracker.protect(log(), 0, random.nextLong(PAGES));
        tracker.abort();
      }
    }
    tracker.lastSync();
    send(Order.PROTECTED);
    assertEquals(0, tracker.failures());
    return memory.segment().mismatch(copy.segment());
  }

  @Test
  void pagesThatAreProtectedBeforeTheyAreReadAreNeverLost() {
    long lost = lostAfterAWalk(Order.PROTECTED_THEN_READ_AMID_WRITES);
    assertEquals(-1, lost, () -> "page " + (lost >> Pages.SHIFT) + ", -Dtidemark.seed=" + SEED);
  }

  /** So that the test above can fail. */
  @Test
  void pagesThatAreReadBeforeTheyAreProtectedAreLost() {
    assertNotEquals(
        -1, lostAfterAWalk(Order.READ_THEN_PROTECTED_AMID_WRITES), () -> "-Dtidemark.seed=" + SEED);
  }

  @Test
  void whatIsWrittenBeforeItIsProtectedIsNotReportedAgain() {
    track(true);
    write(90, 30);
    tracker.syncUnprotected();
    assertEquals(30, tracker.harvest());
    write(95, 20);
    // Not reported yet, though right beside.
    write(120, 2);
    assertTrue(tracker.protect(log(), 90, 30));
    assertFalse(tracker.protect(log(), 90, 30), "they are");
    write(99, 2);
    tracker.commit();
    assertEquals(4, harvestAfterSync());
    assertEquals(0, harvestAfterSync());
  }

  @Test
  void aClearTakesSoManyPagesAndNoneWhereThereAreNone() {
    track(true);
    for (long page = 704; page < 1029; page += 2) {
      write(page, 1);
    }
    write(0, 3);
    long before = log().counters().queries();
    tracker.syncUnprotected();
    assertEquals(before + STARTS.length, log().counters().queries(), "a GET of each slot");
    assertEquals(163 + 3, tracker.harvest());
    assertTrue(tracker.protect(log(), 0, 1));
    assertFalse(tracker.protect(log(), 1, 703), "slot 1 has none, slot 0 was cleared");
    // 32 of each word: two words a CLEAR.
    assertTrue(tracker.protect(log(), 704, 128));
    assertFalse(tracker.protect(log(), 704, 128));
    assertEquals(before + STARTS.length + 2, log().counters().queries());
    assertTrue(tracker.protect(log(), 832, 1029 - 832));
    assertEquals(before + STARTS.length + 4, log().counters().queries());
    tracker.commit();
    assertEquals(0, harvestAfterSync());
  }

  @Test
  void theLastSyncClearsNothing() {
    track(true);
    write(90, 1000);
    long before = log().counters().queries();
    tracker.lastSync();
    assertEquals(1000, takeAway());
    assertFalse(tracker.protect(log(), 0, PAGES));
    assertEquals(before + STARTS.length, log().counters().queries(), "a GET of each slot");
    write(2000, 1);
    // Against the contract: reported again.
    assertEquals(1001, harvestAfterSync());
    assertEquals(0, harvestAfterSync());
  }

  @Test
  void anOrdinarySyncProtectsAtOnceAlsoWhatWasLeftBefore() {
    track(true);
    write(90, 30);
    tracker.syncUnprotected();
    assertEquals(30, harvestAfterSync());
    assertFalse(tracker.protect(log(), 0, PAGES));
    write(100, 1);
    assertEquals(1, harvestAfterSync());
  }

  @Test
  void plainTrackingProtectsAtOnce() {
    track(false);
    write(90, 30);
    tracker.syncUnprotected();
    write(100, 1);
    assertEquals(30, takeAway());
    assertFalse(tracker.protect(log(), 0, PAGES));
    tracker.lastSync();
    assertEquals(1, takeAway());
  }

  @Test
  void aClearThatFailsMakesAllDirtyAndLosesNothing() {
    track(true);
    write(90, 30);
    tracker.syncUnprotected();
    assertEquals(30, tracker.harvest());
    // The VMM turns logging off behind our back, so that KVM has no log to clear.
    setRegion(FIRST_SLOT, STARTS[0], STARTS[1]);
    assertTrue(tracker.protect(log(), 90, 30));
    assertEquals(1, tracker.failures());
    copy(90, 30);
    tracker.commit();
    assertEquals(PAGES, tracker.harvest());
  }

  @Test
  void whatWasLeftUnprotectedBeforeAStopIsNotClearedAfterIt() {
    track(true);
    write(90, 30);
    tracker.syncUnprotected();
    tracker.harvest();
    tracker.stop();
    tracker.start();
    takeAway();
    write(90, 30);
    assertFalse(tracker.protect(log(), 0, PAGES));
    tracker.syncUnprotected();
    tracker.harvest();
    long pages = log().epoch().pages();
    assertTrue(pages >= 30, pages + " pages");
  }
}
