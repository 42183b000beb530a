package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static dev.tidemark.engine.source.dma.LabDma.pagesOf;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static dev.tidemark.engine.source.dma.LogLab.range;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.plan.DeviceProbe;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.LockedMemory;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Limits that the kernel sets, and objects that are gone while a source uses them: each has a named
 * error or makes everything dirty that it may concern, and what is left is tracked.
 */
@Tag("lab-mock")
class DmaLimitTest {
  private static final int PAGES = 1024;

  private static String refused(int errno, Runnable call) {
    LinuxException refused = assertThrows(LinuxException.class, call::run);
    assertEquals(errno, refused.errno(), refused.getMessage());
    return refused.getMessage();
  }

  private static void says(String part, String message) {
    assertTrue(message.contains(part), message);
  }

  @ParameterizedTest
  @EnumSource
  void aMappingBeyondTheLockedMemoryIsRefusedAndTheRestGoesOn(UnmapPolicy policy)
      throws InterruptedException {
    try (LabDma lab = new LabDma(policy, PAGES)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      lab.map(0, 8, 0, 8, true);
      lab.start();
      lab.write(hwpt, 1);
      // What was mapped with the privilege is not counted.
      LockedMemory.limit(
          8 * PAGE,
          () -> {
            says("RLIMIT_MEMLOCK", refused(Errno.ENOMEM, () -> lab.map(8, 9, 0, 100, true)));
            assertEquals(1, lab.map.mappings());
            lab.map(8, 8, 0, 100, true);
          });
      lab.write(hwpt, 15);
      assertEquals(set(9, 107), lab.take(0));
      assertEquals(16, lab.unmap(0, 16));
      assertEquals(0, lab.tracker.failures());
    }
  }

  @Test
  void type1TakesSoManyMappingsAndTracksThem() throws IOException {
    Path limit = Path.of("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit");
    String before = Files.readString(limit).strip();
    Files.writeString(limit, "4");
    try (Type1Lab lab = new Type1Lab()) {
      for (int i = 0; i < 4; i++) {
        lab.map(64 * i, 64, 64 * i, true);
      }
      lab.tracker.start();
      lab.take();
      says("fewer mappings", refused(Errno.ENOSPC, () -> lab.map(256, 64, 256, true)));
      assertEquals(4, lab.source.map().mappings());
      lab.write(255);
      assertEquals(set(255), lab.take());
      assertEquals(64 * PAGE, lab.source.unmap(lab.iova(0), 64 * PAGE));
      lab.map(256, 64, 256, true);
      lab.write(319);
      assertEquals(set(319), lab.take());
      assertEquals(0, lab.tracker.failures());
    } finally {
      Files.writeString(limit, before);
    }
  }

  @Test
  void aContainerThatIsClosedMakesEverythingDirty() {
    try (Type1Lab lab = new Type1Lab()) {
      lab.map(0, 64, 8, true);
      lab.map(64, 64, 200, false);
      lab.tracker.start();
      lab.take();
      lab.write(1);
      lab.container.close();
      assertEquals(range(8, 72), lab.take());
      assertEquals(1, lab.tracker.failures());
      assertTrue(lab.tracker.lastFailure() instanceof ClosedException);
      assertThrows(ClosedException.class, () -> lab.map(256, 1, 300, true));
      assertThrows(ClosedException.class, () -> lab.source.unmapAll());
      assertEquals(2, lab.source.map().mappings(), "nobody knows what the kernel has");
      assertEquals(range(8, 72), lab.take());
      assertThrows(ClosedException.class, lab.tracker::stop);
    }
  }

  @Test
  void aPageTableThatIsDestroyedBehindTheSourceMakesEverythingDirty() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, PAGES)) {
      Hwpt good = lab.hwpt();
      Hwpt stale =
          lab.iommufd.allocHwpt(
              lab.device.deviceId(), lab.ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
      lab.source.add(good);
      lab.source.add(stale);
      lab.map(0, 8, 0, 8, true);
      lab.start();
      lab.write(stale, 1);
      int id = stale.id();
      lab.mock.destroy(id);
      assertEquals(range(8, 16), lab.take(0));
      String why = lab.tracker.lastFailure().getMessage();
      says("IOMMU_HWPT_GET_DIRTY_BITMAP", why);
      says("ENOENT", why);
      // The kernel gives the id to the next that is made, of whatever kind.
      try (Ioas successor = lab.iommufd.allocIoas()) {
        assertEquals(id, successor.id());
        assertEquals(range(8, 16), lab.take(0));
        lab.write(good, 2);
        assertEquals(8, lab.unmap(0, 8));
        assertEquals(1, lab.source.unmapReport().failedQueries());
        assertEquals(range(8, 16), lab.take(0));
        lab.map(0, 8, 0, 8, true);
        assertEquals(range(8, 16), lab.take(0));
      }
      long failures = lab.tracker.failures();
      lab.source.remove(stale);
      assertEquals(range(8, 16), lab.take(0), "its last answer is not there");
      refused(Errno.ENOENT, stale::close);
      lab.write(good, 3);
      assertEquals(set(11), lab.take(0));
      assertEquals(failures, lab.tracker.failures());
    }
  }

  /** What a kernel without NO_CLEAR says to the query before an unmap. */
  @Test
  void aQueryThatIsNotSupportedMakesAllThatIsUnmappedDirty() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, PAGES)) {
      Hwpt tracking =
          lab.iommufd.allocHwpt(
              lab.device.deviceId(), lab.ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
      int id = tracking.id();
      lab.source.add(lab.iommufd.borrowHwpt(id));
      lab.map(0, 8, 0, 8, true);
      lab.map(8, 8, 0, 100, true);
      lab.start();
      lab.write(tracking, 1);
      tracking.close();
      try (Hwpt cannot = lab.iommufd.allocHwpt(lab.device.deviceId(), lab.ioas, 0);
          Mapping bitmap = Mapping.guarded(64)) {
        assertEquals(id, cannot.id(), "the next gets it");
        says(
            "IOMMU_HWPT_GET_DIRTY_BITMAP",
            refused(
                Errno.EOPNOTSUPP,
                () ->
                    cannot.getDirtyBitmap(
                        LabDma.BASE * PAGE,
                        8 * PAGE,
                        PAGE,
                        IommufdUapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
                        bitmap.segment())));
        assertEquals(8, lab.unmap(0, 8));
        assertEquals(1, lab.source.unmapReport().failedQueries());
        assertEquals(0, lab.source.unmapReport().openPages());
        lab.log(0).mergeMarks();
        lab.tracker.harvest();
        assertEquals(range(8, 16), pagesOf(lab.log(0).epoch()), "and not what is still mapped");
        lab.tracker.commit();
        assertEquals(1, lab.map.mappings());
        assertThrows(LinuxException.class, lab.tracker::stop);
      }
    }
  }

  @Test
  void aPageTableThatItsOwnerClosesMakesEverythingDirty() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, PAGES)) {
      Hwpt good = lab.hwpt();
      Hwpt closed = lab.hwpt();
      lab.source.add(good);
      lab.source.add(closed);
      lab.map(0, 8, 0, 8, true);
      lab.start();
      lab.write(closed, 1);
      closed.close();
      assertEquals(range(8, 16), lab.take(0));
      assertTrue(lab.tracker.lastFailure() instanceof ClosedException);
      lab.source.remove(closed);
      assertEquals(range(8, 16), lab.take(0));
      lab.write(good, 3);
      assertEquals(set(11), lab.take(0));
    }
  }

  @Test
  void anAddressSpaceThatIsGoneTakesNoMapping() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, PAGES)) {
      Ioas gone = lab.iommufd.allocIoas();
      HwptSource source = new HwptSource(gone, new DmaMap(), UnmapPolicy.QUERY);
      lab.mock.destroy(gone.id());
      says(
          "IOMMU_IOAS_MAP",
          refused(Errno.ENOENT, () -> source.map(LabDma.BASE * PAGE, PAGE, lab.log(0), 0, true)));
      assertEquals(0, source.map().mappings());
      refused(Errno.ENOENT, gone::close);
      assertThrows(
          ClosedException.class, () -> source.map(LabDma.BASE * PAGE, PAGE, lab.log(0), 0, true));
      assertEquals(0, source.map().mappings());
    }
  }

  @Test
  void aDeviceThatIsGoneHasNoPageTable() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, PAGES)) {
      MockIommu.Device gone = lab.mock.addDevice(lab.ioas, 0);
      lab.mock.removeDevice(gone);
      String why = DeviceProbe.trackingMissing(lab.iommufd, gone.deviceId()).orElseThrow();
      says("ENOENT", why);
      says("no such device", why);
    }
  }

  @Test
  void anIommufdThatIsClosedMakesEverythingDirty() {
    LabDma lab = new LabDma(UnmapPolicy.QUERY, PAGES);
    try (lab) {
      lab.source.add(lab.hwpt());
      lab.map(0, 8, 0, 8, true);
      lab.start();
      lab.iommufd.close();
      assertEquals(range(8, 16), lab.take(0));
      assertThrows(ClosedException.class, () -> lab.map(8, 8, 0, 8, true));
      assertThrows(ClosedException.class, () -> lab.unmap(0, 8));
      assertEquals(1, lab.map.mappings());
      assertEquals(range(8, 16), lab.take(0));
      assertThrows(ClosedException.class, lab.tracker::stop);
    }
  }

  @Test
  void afterItsTrackerIsClosedASourceStillUnmapsAndMarksNothing() {
    try (LabDma lab = new LabDma(UnmapPolicy.STRICT, PAGES)) {
      lab.source.add(lab.hwpt());
      lab.map(0, 8, 0, 8, true);
      lab.start();
      lab.tracker.close();
      assertThrows(IllegalStateException.class, lab.tracker::sync);
      assertEquals(8 * PAGE, lab.source.unmapAll());
      assertEquals(0, lab.map.mappings());
    }
  }

  /** A type1 container with a device that writes. */
  private static final class Type1Lab implements AutoCloseable {
    private static final long BASE = 1L << 12;

    final VfioContainer container = VfioContainer.open();
    private final VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PRE_COPY).group());
    private final Mapping memory = Mapping.anonymous(PAGES * PAGE);
    private final DmaDevice device;
    final DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    final Type1Source source;

    Type1Lab() {
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      device = DmaDevice.open(DmaDevice.PRE_COPY, group);
      source = new Type1Source(container, new DmaMap());
      tracker.add(source);
      tracker.coverByMarks(tracker.logs().getFirst(), 0, PAGES);
    }

    long iova(long at) {
      return (BASE + at) * PAGE;
    }

    void map(long at, long pages, long page, boolean writable) {
      source.map(iova(at), pages * PAGE, tracker.logs().getFirst(), page, writable);
    }

    void write(long at) {
      device.write(iova(at), at);
    }

    BitSet take() {
      tracker.sync();
      tracker.harvest();
      BitSet pages = pagesOf(tracker.logs().getFirst().epoch());
      tracker.commit();
      return pages;
    }

    @Override
    public void close() {
      tracker.close();
      device.close();
      group.close();
      container.close();
      memory.close();
    }
  }
}
