package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static dev.tidemark.engine.source.dma.LabDma.pagesOf;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.DirtyTracker.Share;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.util.BitSet;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * One guest with devices that log, page tables that track, a type1 container and an address space
 * where nobody tracks; each has the guest's memory at another address. In the lab.
 */
@Tag("lab-mock")
class MixedMachineTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int PAGES = 2000;
  private static final long IOMMU = MockIommu.MOCK_APERTURE_START;
  private static final long LOGS = (5L << 30) + 3 * PAGE;
  private static final long TYPE1 = 1L << 20;
  private static final long UNTRACKED = 1L << 33;

  static {
    System.out.println("MixedMachineTest: -Dtidemark.seed=" + SEED);
  }

  private final SplittableRandom random = new SplittableRandom(SEED);
  private final Mapping memory = Mapping.anonymous(PAGES * PAGE);
  private final DirtyTracker tracker =
      new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
  private final RamBlockLog log = tracker.logs().getFirst();
  private final Iommufd iommufd = Iommufd.open();
  private final MockIommu mock = new MockIommu(iommufd);
  private final Ioas loggedSpace = iommufd.allocIoas();
  private final Ioas trackedSpace = iommufd.allocIoas();
  private final Ioas plainSpace = iommufd.allocIoas();
  private final DmaDevice first = DmaDevice.open(DmaDevice.PLAIN, iommufd);
  private final DmaDevice second = DmaDevice.open(DmaDevice.STOP_COPY, iommufd);
  private final DmaDevice stranger = DmaDevice.open(DmaDevice.P2P, iommufd);
  private final VfioContainer container = VfioContainer.open();
  private final VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PRE_COPY).group());
  private final DmaDevice third;
  private final Hwpt hwpt;
  private final DeviceLogSource logs;
  private final HwptSource tables;
  private final Type1Source type1;
  private final HwptSource nobody;

  MixedMachineTest() {
    MockIommu.Device behind = mock.addDevice(trackedSpace, 0);
    hwpt =
        iommufd.allocHwpt(
            behind.deviceId(), trackedSpace, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    first.vfio().attach(loggedSpace);
    second.vfio().attach(loggedSpace);
    stranger.vfio().attach(plainSpace);
    group.setContainer(container);
    container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
    third = DmaDevice.open(DmaDevice.PRE_COPY, group);
    logs = new DeviceLogSource(loggedSpace, new DmaMap(), DeviceLogSource.REPORT_WAITS);
    tables = new HwptSource(trackedSpace, new DmaMap(), UnmapPolicy.QUERY);
    type1 = new Type1Source(container, new DmaMap());
    nobody = new HwptSource(plainSpace, new DmaMap(), UnmapPolicy.QUERY);
    logs.add(first.vfio());
    logs.add(second.vfio());
    tables.add(hwpt);
    nobody.addUntracked("stranger");
    List.of(logs, tables, type1, nobody).forEach(tracker::add);
    tracker.coverByMarks(log, 0, PAGES);
    logs.map(LOGS, PAGES * PAGE, log, 0, true);
    tables.map(IOMMU, PAGES * PAGE, log, 0, true);
    type1.map(TYPE1, PAGES * PAGE, log, 0, true);
    // Only some of the memory, so that what always counts as dirty can be told from the rest.
    nobody.map(UNTRACKED, 16 * PAGE, log, PAGES - 16, true);
  }

  @AfterEach
  void close() {
    tracker.close();
    third.close();
    group.close();
    container.close();
    List.of(first, second, stranger).forEach(DmaDevice::close);
    hwpt.close();
    iommufd.close();
    memory.close();
  }

  private BitSet write(DmaDevice device, long iova, int writes) {
    device.clear();
    for (int i = 0; i < writes; i++) {
      device.write(iova + random.nextInt(PAGES - 16) * PAGE, random.nextLong());
    }
    // From a multiple of 8 pages on.
    long from = iova & -8 * PAGE;
    int ahead = (int) ((iova - from) / PAGE);
    return LogLab.written(device, from, PAGES + ahead).get(ahead, PAGES + ahead);
  }

  @Test
  void theUnionIsWhatTheDevicesSayTheyWroteAndSoIsEachShare() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
    assertEquals(List.of(), tracker.shares());
    for (int round = 0; round < 10; round++) {
      String at = "seed " + SEED + ", round " + round;
      BitSet byLogs = write(first, LOGS, 30);
      byLogs.or(write(second, LOGS, 30));
      BitSet byTables = new BitSet();
      for (int i = 0; i < 40; i++) {
        int page = random.nextInt(PAGES - 16);
        assertTrue(mock.dirty(hwpt, IOMMU + page * PAGE));
        byTables.set(page);
      }
      BitSet byType1 = write(third, TYPE1, 50);
      stranger.write(UNTRACKED + round * PAGE, round);
      tracker.sync();
      long pages = tracker.harvest();
      BitSet union = (BitSet) byLogs.clone();
      union.or(byTables);
      union.or(byType1);
      assertEquals(union, pagesOf(log.epoch()), at);
      tracker.commit();
      BitSet fromTables = (BitSet) byTables.clone();
      fromTables.andNot(byLogs);
      BitSet fromType1 = (BitSet) byType1.clone();
      fromType1.andNot(byLogs);
      fromType1.andNot(byTables);
      assertEquals(
          List.of(
              new Share("device-log", byLogs.cardinality()),
              new Share("iommufd", fromTables.cardinality()),
              new Share("type1", fromType1.cardinality()),
              new Share("iommufd", 0)),
          tracker.shares(),
          at);
      assertEquals(pages + 16, tracker.pagesAtStop(pages), at);
    }
    BitSet last = write(first, LOGS, 3);
    tracker.lastSync();
    tracker.harvest();
    assertEquals(new Share("iommufd", 16), tracker.shares().getLast());
    last.set(PAGES - 16, PAGES);
    assertEquals(last, pagesOf(log.epoch()), "where nobody tracks everything counts, at last");
    tracker.commit();
    assertEquals(0, tracker.failures(), () -> "" + tracker.lastFailure());
  }

  @Test
  void aPageIsWhereItWasWrittenAlsoWhenOneOfThemUnmapsIt() {
    tracker.start();
    tracker.harvest();
    tracker.commit();
    BitSet byType1 = write(third, TYPE1, 50);
    BitSet byLogs = write(second, LOGS, 50);
    assertTrue(mock.dirty(hwpt, IOMMU + 7 * PAGE));
    assertEquals(PAGES * PAGE, type1.unmapAll());
    assertEquals(PAGES * PAGE, logs.unmapAll());
    assertEquals(PAGES * PAGE, tables.unmapAll());
    tracker.sync();
    tracker.harvest();
    byType1.or(byLogs);
    byType1.set(7);
    assertEquals(byType1, pagesOf(log.epoch()));
    tracker.commit();
  }
}
