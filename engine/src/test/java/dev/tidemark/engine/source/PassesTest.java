package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmVcpu;
import dev.tidemark.ffm.kvm.KvmVm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.lang.foreign.ValueLayout;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The table "the way of one dirty bit" of docs/architecture.md, by the logs' own counters. */
class PassesTest {
  private static final long PAGES = 16_384;

  /** Syncs and harvests once with tracking on; returns what that cost. */
  private static LogCounters costOfARound(DirtyTracker tracker) {
    RamBlockLog log = tracker.logs().getFirst();
    LogCounters before = log.counters();
    tracker.sync();
    tracker.harvest();
    tracker.commit();
    return log.counters().since(before);
  }

  private static void assertKvm() {
    String missing = Kvm.missing().orElse(null);
    assumeTrue(missing == null, missing);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void theSlotLogTakesOnePassHoweverManySlotsThereAre(boolean manual) {
    assertKvm();
    try (Kvm kvm = Kvm.open();
        KvmVm vm = kvm.createVm();
        Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      RamBlockLog log = tracker.logs().getFirst();
      long quarter = PAGES / 4;
      tracker.add(
          new KvmSlotLogSource(
              vm,
              List.of(
                  new KvmSlot(0, log, 0, quarter, 0, 0),
                  new KvmSlot(1, log, quarter, 3 * quarter, 1L << 32, 0)),
              manual));
      tracker.start();
      LogCounters cost = costOfARound(tracker);
      assertEquals(1.0, cost.mergePasses());
      assertEquals(0, cost.markWords());
      assertEquals(manual ? 4 : 2, cost.queries());
      assertEquals(1, cost.harvests());
      assertEquals(cost.planeWords(), cost.harvestedWords(), "one scan finds and counts");
      assertEquals(1.0, costOfARound(tracker).mergePasses());
      assertEquals(0, tracker.failures());
    }
  }

  @Test
  void theDirtyRingTakesNoPass() {
    assertKvm();
    try (Kvm kvm = Kvm.open();
        KvmVm vm = kvm.createVm()) {
      int most = vm.checkExtension(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
      assumeTrue(most > 0, "no KVM_CAP_DIRTY_LOG_RING_ACQ_REL");
      vm.enableCap(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 65_536);
      try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
          KvmVcpu vcpu = vm.createVcpu(0, kvm.vcpuMmapSize());
          KvmDirtyRing ring = vcpu.mapDirtyRing(65_536);
          DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
        RamBlockLog log = tracker.logs().getFirst();
        tracker.add(
            new KvmDirtyRingSource(
                vm, List.of(ring), List.of(new KvmSlot(0, log, 0, PAGES, 0, 0)), () -> {}));
        tracker.start();
        LogCounters cost = costOfARound(tracker);
        assertEquals(0, cost.mergedWords());
        assertEquals(0, cost.markWords());
        assertEquals(0, tracker.failures());
      }
    }
  }

  @Test
  void thePagemapScanTakesNoPassAndItsRangesAreFound() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      tracker.add(new PagemapScanSource(tracker.logs()));
      tracker.start();
      costOfARound(tracker);
      for (long page = 1; page < PAGES; page += 2) {
        memory.segment().set(ValueLayout.JAVA_BYTE, page * Pages.SIZE + page % 4096, (byte) 1);
      }
      LogCounters before = tracker.logs().getFirst().counters();
      tracker.sync();
      assertEquals(PAGES / 2, tracker.harvest());
      tracker.commit();
      LogCounters cost = tracker.logs().getFirst().counters().since(before);
      assertEquals(0, cost.mergedWords());
      assertEquals(0, cost.markWords());
      assertTrue(cost.queries() > 1, "more regions than one call returns");
      assertEquals(0, tracker.failures());
    }
  }

  @Test
  void theLastPagemapScanProtectsNothing() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      tracker.add(new PagemapScanSource(tracker.logs()));
      tracker.start();
      costOfARound(tracker);
      for (long page = 1; page < PAGES; page += 2) {
        memory.segment().set(ValueLayout.JAVA_BYTE, page * Pages.SIZE, (byte) 1);
      }
      tracker.lastSync();
      assertEquals(PAGES / 2, tracker.harvest());
      tracker.commit();
      // Against the contract: reported again, and protected then.
      tracker.sync();
      assertEquals(PAGES / 2, tracker.harvest());
      tracker.commit();
      tracker.sync();
      assertEquals(0, tracker.harvest());
      assertEquals(0, tracker.failures());
    }
  }

  @Test
  void theVmmsMarksTakeWorkOnlyWhereTheyAre() {
    try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      tracker.coverByMarks(tracker.logs().getFirst(), 0, PAGES);
      tracker.start();
      costOfARound(tracker);
      assertEquals(0, costOfARound(tracker).markWords());
      tracker.logs().getFirst().mark(7, 1);
      LogCounters cost = costOfARound(tracker);
      assertEquals(0, cost.mergedWords());
      assertEquals(64, cost.markWords());
    }
  }
}
