package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.*;
import static dev.tidemark.ffm.iommufd.LabIommu.ACCESS;
import static dev.tidemark.ffm.iommufd.LabIommu.IO_PAGE;
import static dev.tidemark.ffm.iommufd.LabIommu.START;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Memfd;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.lab.LabMemory;
import dev.tidemark.ffm.lab.LockedMemory;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.lang.foreign.ValueLayout;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Mapping, unmapping and the life of ids, on the mock IOMMU. */
@Tag("lab-mock")
class IoasTest {
  private static final long PAGE = Pages.SIZE;

  private final LabIommu lab = new LabIommu(0);
  private final LabMemory memory = LabMemory.shared(64 * PAGE);

  @AfterEach
  void close() {
    lab.close();
    memory.close();
  }

  private void map(long page, long pages) {
    lab.ioas.mapFixed(START + page * PAGE, memory.address() + page * PAGE, pages * PAGE, ACCESS);
  }

  private static LinuxException refused(int errno, Runnable call) {
    LinuxException refused = assertThrows(LinuxException.class, call::run);
    assertEquals(errno, refused.errno(), refused.getMessage());
    return refused;
  }

  @Test
  void mappingsLeadToTheMemory() {
    map(0, 8);
    Hwpt automatic = lab.iommufd.borrowHwpt(lab.device.hwptId());
    assertTrue(lab.mock.leadsTo(automatic, START, memory.segment().asSlice(0, 8 * PAGE)));
    assertFalse(lab.mock.leadsTo(automatic, START, memory.segment().asSlice(8 * PAGE, 8 * PAGE)));
  }

  @Test
  void mappingRefusesWhatItCannotDo() {
    map(0, 4);
    LinuxException taken = refused(Errno.EEXIST, () -> map(3, 1));
    assertTrue(taken.getMessage().contains("IOVA 0x1003000"), taken.getMessage());
    long free = START + 16 * PAGE;
    refused(Errno.EINVAL, () -> lab.ioas.mapFixed(free, memory.address(), PAGE, 0));
    refused(Errno.EINVAL, () -> lab.ioas.mapFixed(free, memory.address(), 0, ACCESS));
    refused(Errno.EINVAL, () -> lab.ioas.mapFixed(free + 1, memory.address(), PAGE, ACCESS));
    refused(Errno.EINVAL, () -> lab.ioas.mapFixed(START - PAGE, memory.address(), PAGE, ACCESS));
    refused(
        Errno.EINVAL,
        () -> lab.ioas.mapFixed(MockIommu.MOCK_APERTURE_LAST + 1, memory.address(), PAGE, ACCESS));
    refused(Errno.EFAULT, () -> lab.ioas.mapFixed(free, PAGE, PAGE, ACCESS));
    refused(Errno.EOVERFLOW, () -> lab.ioas.mapFixed(-PAGE, memory.address(), -1, ACCESS));
    assertThrows(
        IllegalArgumentException.class,
        () -> lab.ioas.mapFixed(free, memory.address(), PAGE, IOMMU_IOAS_MAP_FIXED_IOVA));
    try (LabMemory readOnly = LabMemory.readOnly(PAGE)) {
      refused(Errno.EFAULT, () -> lab.ioas.mapFixed(free, readOnly.address(), PAGE, ACCESS));
      lab.ioas.mapFixed(free, readOnly.address(), PAGE, IOMMU_IOAS_MAP_READABLE);
    }
  }

  @Test
  void withoutAPageTableNothingIsCheckedUntilThereIsOne() {
    try (Ioas bare = lab.iommufd.allocIoas()) {
      bare.mapFixed(START, PAGE, PAGE, ACCESS);
      refused(Errno.EFAULT, () -> lab.tracking(bare));
    }
  }

  @Test
  void anAddressIsChosenWhereNoneIsGiven() {
    long iova = lab.ioas.map(memory.address(), 4 * PAGE, ACCESS);
    assertTrue(iova >= START && iova + 4 * PAGE - 1 <= MockIommu.MOCK_APERTURE_LAST);
    assertEquals(4 * PAGE, lab.ioas.unmap(iova, 4 * PAGE));
    lab.ioas.allowIovas(List.of(new IovaRange(START + 32 * PAGE, START + 40 * PAGE - 1)));
    assertEquals(START + 32 * PAGE, lab.ioas.map(memory.address(), 8 * PAGE, ACCESS));
    refused(Errno.ENOSPC, () -> lab.ioas.map(memory.address(), PAGE, ACCESS));
    lab.ioas.allowIovas(List.of());
    lab.ioas.map(memory.address(), PAGE, ACCESS);
  }

  @Test
  void unmappingIsOfWholeMappings() {
    map(0, 4);
    map(4, 4);
    refused(Errno.ENOENT, () -> lab.ioas.unmap(START + PAGE, PAGE));
    assertEquals(8 * PAGE, lab.ioas.unmap(START, 8 * PAGE));
    refused(Errno.ENOENT, () -> lab.ioas.unmap(START, 8 * PAGE));
    refused(Errno.EINVAL, () -> lab.ioas.unmap(START, 0));
    map(0, 4);
    map(9, 4);
    assertEquals(8 * PAGE, lab.ioas.unmapAll());
    assertEquals(0, lab.ioas.unmapAll());
  }

  @Test
  void aRefusedUnmapMayHaveUnmappedTheFirstMappings() {
    map(0, 4);
    map(4, 4);
    refused(Errno.ENOENT, () -> lab.ioas.unmap(START, 6 * PAGE));
    assertEquals(4 * PAGE, lab.ioas.unmap(START, 8 * PAGE));
  }

  @Test
  void whatCanBeMappedIsAsked() {
    try (Ioas bare = lab.iommufd.allocIoas()) {
      assertEquals(new Ioas.IovaRanges(1, List.of(new IovaRange(0, -1))), bare.iovaRanges());
    }
    assertEquals(
        new Ioas.IovaRanges(
            IO_PAGE,
            List.of(new IovaRange(MockIommu.MOCK_APERTURE_START, MockIommu.MOCK_APERTURE_LAST))),
        lab.ioas.iovaRanges());
    // More ranges than are asked for at first.
    for (long hole = 0; hole < 40; hole++) {
      lab.mock.addReserved(lab.ioas, START + (2 * hole + 1) * PAGE, PAGE);
    }
    Ioas.IovaRanges ranges = lab.ioas.iovaRanges();
    assertEquals(41, ranges.ranges().size());
    assertEquals(new IovaRange(START + 2 * PAGE, START + 3 * PAGE - 1), ranges.ranges().get(1));
    refused(
        Errno.EADDRINUSE,
        () -> lab.ioas.allowIovas(List.of(new IovaRange(START, START + 4 * PAGE - 1))));
  }

  @Test
  void copiesShareMemory() {
    map(0, 8);
    try (Ioas other = lab.iommufd.allocIoas()) {
      other.copyFixed(START, lab.ioas, START, 8 * PAGE, ACCESS);
      Hwpt table = lab.tracking(other);
      assertTrue(lab.mock.leadsTo(table, START, memory.segment().asSlice(0, 8 * PAGE)));
      refused(
          Errno.ENOENT,
          () -> other.copyFixed(START + 64 * PAGE, lab.ioas, START + 4 * PAGE, 8 * PAGE, ACCESS));
      lab.ioas.mapFixed(START + 20 * PAGE, memory.address(), PAGE, IOMMU_IOAS_MAP_READABLE);
      refused(
          Errno.EPERM,
          () -> other.copyFixed(START + 64 * PAGE, lab.ioas, START + 20 * PAGE, PAGE, ACCESS));
      lab.ioas.copyFixed(START + 32 * PAGE, lab.ioas, START, 8 * PAGE, ACCESS);
      table.close();
    }
  }

  @Test
  void largeEntriesAreForbiddenBeforeMappingOnly() {
    try (Ioas own = lab.iommufd.allocIoas()) {
      own.setHugePages(false);
      own.setHugePages(true);
      own.setHugePages(false);
      assertFalse(own.getHugePages());
      assertEquals(PAGE, own.iovaRanges().alignment());
      own.setHugePages(true);
      assertEquals(1, own.iovaRanges().alignment());
    }
    map(0, 4);
    refused(Errno.EINVAL, () -> lab.ioas.setHugePages(false));
    assertTrue(lab.ioas.getHugePages());
  }

  @Test
  void accountingIsChosenBeforeAnythingElse() {
    refused(Errno.EBUSY, () -> lab.iommufd.setRlimitMode(1));
    try (Iommufd fresh = Iommufd.open()) {
      assertEquals(0, fresh.getRlimitMode());
      fresh.setRlimitMode(1);
      assertEquals(1, fresh.getRlimitMode());
      refused(Errno.EINVAL, () -> fresh.setRlimitMode(2));
    }
  }

  @Test
  void mappingFilesIsAskedForAndNotGuessed() {
    // linux-6.12, the lab's, is the last without.
    assertFalse(lab.iommufd.hasMapFile());
    try (Memfd file = Memfd.create("map-file", PAGE)) {
      refused(Errno.ENOTTY, () -> lab.ioas.mapFile(START, file.fd(), 0, PAGE, ACCESS));
    }
  }

  @Test
  void aDescriptorPlaysContainer() {
    assertTrue(lab.iommufd.getVfioIoas().isEmpty());
    lab.iommufd.setVfioIoas(lab.ioas);
    assertEquals(lab.ioas.id(), lab.iommufd.getVfioIoas().orElseThrow().id());
    try (VfioContainer container = VfioContainer.borrow(lab.iommufd.fd().acquire())) {
      assertTrue(container.checkExtension(VfioUapi.VFIO_TYPE1v2_IOMMU));
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      container.mapDma(START, memory.address(), 4 * PAGE, 3);
      assertTrue(container.info().migration().isEmpty());
      refused(Errno.ENOTTY, () -> container.setDirtyTracking(true));
      assertEquals(4 * PAGE, lab.ioas.unmap(START, 4 * PAGE));
    } finally {
      lab.iommufd.fd().release();
    }
    lab.iommufd.clearVfioIoas();
    assertTrue(lab.iommufd.getVfioIoas().isEmpty());
  }

  @Test
  void anIdIsGivenAgainAtOnceAndTheOldOwnerDoesNotFollow() {
    Ioas first = lab.iommufd.allocIoas();
    int id = first.id();
    first.close();
    try (Ioas second = lab.iommufd.allocIoas()) {
      assertEquals(id, second.id());
      assertThrows(ClosedException.class, first::unmapAll);
      assertThrows(
          ClosedException.class, () -> first.mapFixed(START, memory.address(), PAGE, ACCESS));
      assertThrows(ClosedException.class, first::iovaRanges);
      assertThrows(
          ClosedException.class, () -> second.copyFixed(START, first, START, PAGE, ACCESS));
      assertThrows(ClosedException.class, () -> lab.tracking(first));
      assertThrows(ClosedException.class, () -> lab.iommufd.setVfioIoas(first));
      first.close();
      assertEquals(id, second.id());
      second.iovaRanges();
    }
  }

  @Test
  void borrowedObjectsAreLeftAlone() {
    lab.iommufd.borrowIoas(lab.ioas.id()).close();
    map(0, 1);
    lab.iommufd.borrowHwpt(lab.device.hwptId()).close();
    Iommufd borrowed = Iommufd.borrow(lab.iommufd.fd().acquire());
    try {
      Ioas own = borrowed.allocIoas();
      borrowed.close();
      assertThrows(ClosedException.class, borrowed::allocIoas);
      assertThrows(ClosedException.class, own::close);
    } finally {
      lab.iommufd.fd().release();
    }
    lab.ioas.unmapAll();
  }

  @Test
  void everythingGoesWithTheDescriptor() {
    Ioas own = lab.iommufd.allocIoas();
    Hwpt table = lab.tracking(own);
    lab.iommufd.close();
    table.close();
    own.close();
    assertThrows(ClosedException.class, own::id);
  }

  @Test
  void anAutomaticPageTableGoesWithItsLastDevice() {
    try (Hwpt table = lab.tracking(lab.ioas)) {
      assertEquals(table.id(), lab.mock.replace(lab.device, table));
      refused(
          Errno.ENOENT, () -> lab.iommufd.borrowHwpt(lab.device.hwptId()).setDirtyTracking(true));
      refused(Errno.EBUSY, table::close);
      lab.mock.removeDevice(lab.device);
    }
  }

  @Test
  void memoryBeyondTheLimitIsRefusedAndTheLimitNamed() throws InterruptedException {
    LockedMemory.limit(
        16 * PAGE,
        () -> {
          map(0, 16);
          LinuxException refused = refused(Errno.ENOMEM, () -> map(16, 1));
          assertTrue(refused.getMessage().contains("RLIMIT_MEMLOCK"), refused.getMessage());
          lab.ioas.unmap(START, 16 * PAGE);
          map(16, 1);
        });
  }

  @Test
  void memoryThatCannotBePinnedIsRefusedAndNoneOfItMapped() {
    long bytes = 2 * LabMemory.HUGE;
    try (LabMemory unreserved = LabMemory.unreservedHuge(2)) {
      unreserved.segment().set(ValueLayout.JAVA_LONG, 0, 1);
      Runnable map = () -> lab.ioas.mapFixed(START, unreserved.address(), bytes, ACCESS);
      try (LabMemory all = LabMemory.allHuge()) {
        assertTrue(all.segment().byteSize() >= LabMemory.HUGE);
        LinuxException refused = refused(Errno.EFAULT, map);
        assertTrue(refused.getMessage().contains("IOMMU_IOAS_MAP"), refused.getMessage());
        refused(Errno.ENOENT, () -> lab.ioas.unmap(START, bytes));
      }
      map.run();
      assertEquals(bytes, lab.ioas.unmap(START, bytes));
    }
  }
}
