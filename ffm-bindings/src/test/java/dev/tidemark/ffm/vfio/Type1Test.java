package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.LabDevices;
import dev.tidemark.ffm.lab.LabMemory;
import dev.tidemark.ffm.lab.LockedMemory;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The type1 container with a PCI device behind a real IOMMU, whose driver pins no pages. */
@Tag("lab-vtd")
class Type1Test {
  private static final long PAGE = 4096;
  private static final long BASE = 1L << 24;
  private static final int ACCESS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;

  private LabDevices card;
  private VfioContainer container;
  private VfioGroup group;
  private Mapping memory;
  private Mapping bitmap;

  @BeforeEach
  void open() throws IOException {
    card = LabDevices.pci();
    container = VfioContainer.open();
    group = VfioGroup.open(card.group());
    memory = Mapping.anonymous(256 * PAGE);
    bitmap = Mapping.guarded(64);
  }

  @AfterEach
  void close() {
    group.close();
    container.close();
    memory.close();
    bitmap.close();
  }

  private void join() {
    group.setContainer(container);
    container.setIommu(VFIO_TYPE1v2_IOMMU);
  }

  private void map(long page, long pages) {
    container.mapDma(
        BASE + page * PAGE, memory.segment().address() + page * PAGE, pages * PAGE, ACCESS);
  }

  private long word(int index) {
    return bitmap.segment().getAtIndex(JAVA_LONG, index);
  }

  private void get(long page, long pages) {
    container.getDirtyBitmap(BASE + page * PAGE, pages * PAGE, PAGE, bitmap.segment());
  }

  private static String refused(int errno, Runnable call) {
    LinuxException refused = assertThrows(LinuxException.class, call::run);
    assertEquals(errno, refused.errno(), refused.getMessage());
    return refused.getMessage();
  }

  @Test
  void whatTheContainerCanDoIsAsked() {
    assertEquals(VFIO_API_VERSION, container.apiVersion());
    assertTrue(container.checkExtension(VFIO_TYPE1v2_IOMMU));
    assertTrue(container.checkExtension(VFIO_UNMAP_ALL));
    assertFalse(container.checkExtension(12345));
    assertEquals(VFIO_GROUP_FLAGS_VIABLE, group.status());
    refused(Errno.EINVAL, () -> container.setIommu(VFIO_TYPE1v2_IOMMU));
    join();
    assertEquals(VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET, group.status());

    VfioContainer.Info info = container.info();
    assertEquals(PAGE, Long.lowestOneBit(info.pageSizes()));
    VfioContainer.Migration migration = info.migration().orElseThrow();
    assertEquals(PAGE, migration.pageSize());
    assertEquals(268_435_456, migration.maxDirtyBitmapSize());
    assertTrue(info.mappingsLeft().orElseThrow() > 60_000);
    assertTrue(info.ranges().getFirst().contains(BASE, 256 * PAGE), info.toString());
    // The window of interrupt messages is not for mappings.
    assertFalse(
        info.ranges().stream().anyMatch(range -> range.contains(0xfee00000L, PAGE)),
        info.toString());
    long before = info.mappingsLeft().orElseThrow();
    map(0, 1);
    assertEquals(before - 1, container.info().mappingsLeft().orElseThrow());
  }

  @Test
  void aDeviceOfTheGroupOpens() {
    join();
    try (VfioDevice device = group.openDevice(card.name())) {
      assertTrue((device.info().flags() & VFIO_DEVICE_FLAGS_PCI) != 0);
      assertEquals(0, device.migrationFlags());
      refused(Errno.ENOTTY, device::migDeviceState);
      refused(Errno.EBUSY, group::unsetContainer);
      try (Iommufd iommufd = Iommufd.open()) {
        refused(Errno.EINVAL, () -> device.bindIommufd(iommufd));
      }
    }
    refused(Errno.ENODEV, () -> group.openDevice("0000:7f:1f.7"));
    group.unsetContainer();
  }

  @Test
  void theCharacterDeviceIsBusyWhileTheGroupIsOpen() {
    try (VfioDevice device = VfioDevice.open(card.cdev());
        Iommufd iommufd = Iommufd.open()) {
      refused(Errno.EBUSY, () -> device.bindIommufd(iommufd));
    }
  }

  @Test
  void mappingRefusesWhatItCannotDo() {
    join();
    map(0, 4);
    refused(Errno.EEXIST, () -> map(3, 1));
    refused(Errno.EINVAL, () -> map(4, 0));
    refused(
        Errno.EINVAL, () -> container.mapDma(BASE + 1, memory.segment().address(), PAGE, ACCESS));
    refused(
        Errno.EINVAL,
        () -> container.mapDma(0xfee00000L, memory.segment().address(), PAGE, ACCESS));
    refused(Errno.EFAULT, () -> container.mapDma(BASE + 64 * PAGE, PAGE, PAGE, ACCESS));
    assertThrows(
        IllegalArgumentException.class,
        () -> container.mapDma(BASE + 64 * PAGE, memory.segment().address(), PAGE, 8));
  }

  @Test
  void memoryBeyondTheLimitIsRefusedAndTheLimitNamed() throws InterruptedException {
    join();
    LockedMemory.limit(
        16 * PAGE,
        () -> {
          map(0, 8);
          // It pins what the limit leaves, then gives that back.
          for (int i = 0; i < 2; i++) {
            String refused = refused(Errno.ENOMEM, () -> map(8, 9));
            assertTrue(refused.contains("ulimit -l"), refused);
          }
          map(8, 8);
          refused(Errno.ENOMEM, () -> map(16, 1));
          assertEquals(8 * PAGE, container.unmapDma(BASE, 8 * PAGE));
          map(16, 8);
        });
    container.setDirtyTracking(true);
    get(8, 16);
    assertEquals(0xffff, word(0));
  }

  @Test
  void unmappingIsOfWholeMappings() {
    join();
    map(0, 4);
    map(4, 4);
    refused(Errno.EINVAL, () -> container.unmapDma(BASE, 6 * PAGE));
    refused(Errno.EINVAL, () -> container.unmapDma(BASE + PAGE, 7 * PAGE));
    assertEquals(8 * PAGE, container.unmapDma(BASE, 8 * PAGE));
    assertEquals(0, container.unmapDma(BASE, 8 * PAGE));
    map(0, 4);
    map(8, 4);
    assertEquals(8 * PAGE, container.unmapAll());
  }

  @Test
  void aGroupThatPinsNothingHasWrittenEverythingEachTime() {
    join();
    map(0, 64);
    container.setDirtyTracking(true);
    for (int i = 0; i < 3; i++) {
      bitmap.segment().fill((byte) 0);
      get(0, 64);
      assertEquals(-1, word(0));
      assertEquals(0, word(1));
    }
  }

  @Test
  void startAndStopCanBeRepeated() {
    join();
    container.setDirtyTracking(true);
    container.setDirtyTracking(true);
    container.setDirtyTracking(false);
    container.setDirtyTracking(false);
  }

  @Test
  void queriesAreRefusedAsTheKernelSays() {
    join();
    map(0, 16);
    refused(Errno.EINVAL, () -> get(0, 16));
    container.setDirtyTracking(true);
    get(0, 16);
    refused(Errno.EINVAL, () -> container.getDirtyBitmap(BASE, 16 * PAGE, 8192, bitmap.segment()));
    refused(Errno.EINVAL, () -> container.getDirtyBitmap(BASE, 100, PAGE, bitmap.segment()));
    refused(Errno.EINVAL, () -> container.getDirtyBitmap(BASE, 0, PAGE, bitmap.segment()));
    refused(Errno.EINVAL, () -> container.getDirtyBitmap(BASE + 8, PAGE, PAGE, bitmap.segment()));
    refused(Errno.EINVAL, () -> get(0, 8));
    refused(Errno.EINVAL, () -> get(8, 8));
    try (LabMemory readOnly = LabMemory.readOnly(PAGE)) {
      refused(
          Errno.EFAULT, () -> container.getDirtyBitmap(BASE, 16 * PAGE, PAGE, readOnly.segment()));
    }
    container.setDirtyTracking(false);
    refused(Errno.EINVAL, () -> get(0, 16));
  }

  @Test
  void queriesThatTheKernelWouldMisreadAreNotMade() {
    join();
    map(0, 16);
    container.setDirtyTracking(true);
    MemorySegment small = bitmap.segment().asSlice(0, 4);
    assertThrows(
        IllegalArgumentException.class,
        () -> container.getDirtyBitmap(BASE, 16 * PAGE, PAGE, small));
    assertThrows(
        IllegalArgumentException.class,
        () -> container.getDirtyBitmap(BASE, 16 * PAGE, 3 * PAGE, bitmap.segment()));
    assertThrows(
        IllegalArgumentException.class,
        () -> container.getDirtyBitmap(BASE, 16 * PAGE, PAGE, MemorySegment.ofArray(new long[8])));
  }

  @Test
  void wordsOverMappingsAreOverwrittenAndWordsOverHolesAreNot() {
    join();
    // Two mappings share word 0, word 1 is a hole, word 2 is half mapped.
    map(0, 10);
    map(10, 20);
    map(128, 32);
    container.setDirtyTracking(true);
    bitmap.segment().fill((byte) 0x55);
    get(0, 256);
    long old = 0x5555555555555555L;
    assertEquals((1L << 30) - 1, word(0) & (1L << 30) - 1);
    assertEquals(old, word(1));
    assertEquals((1L << 32) - 1, word(2) & (1L << 32) - 1);
    assertEquals(old, word(3));
  }

  @Test
  void unmappingTellsTheDirtyPages() {
    join();
    map(0, 10);
    map(10, 20);
    assertEquals(
        Errno.EINVAL,
        assertThrows(
                LinuxException.class,
                () -> container.unmapDma(BASE, 30 * PAGE, PAGE, bitmap.segment()))
            .errno());
    container.setDirtyTracking(true);
    refused(Errno.EINVAL, () -> container.unmapDma(BASE, 20 * PAGE, PAGE, bitmap.segment()));
    refused(Errno.EINVAL, () -> container.unmapDma(BASE, 30 * PAGE, 8192, bitmap.segment()));
    assertEquals(30 * PAGE, container.unmapDma(BASE, 30 * PAGE, PAGE, bitmap.segment()));
    assertEquals((1L << 30) - 1, word(0));
    bitmap.segment().fill((byte) 0);
    assertEquals(0, container.unmapDma(BASE, 30 * PAGE, PAGE, bitmap.segment()));
    assertEquals(0, word(0));
  }

  @Test
  void theOlderType1CannotTrack() {
    group.setContainer(container);
    container.setIommu(VFIO_TYPE1_IOMMU);
    refused(Errno.EACCES, () -> container.setDirtyTracking(true));
  }

  @Test
  void exactlyOneOfStartStopAndGetIsAsked() {
    join();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(48, 8);
      argument.set(JAVA_INT, 0, 48);
      for (int flags : new int[] {0, 3, 5, 7, 8}) {
        argument.set(JAVA_INT, 4, flags);
        assertEquals(
            -Errno.EINVAL, Ioctl.tryCall(container.fd(), VFIO_IOMMU_DIRTY_PAGES, argument));
      }
    }
  }

  @Test
  void anIommufdThatPlaysContainerCannotTrack() {
    try (Iommufd iommufd = Iommufd.open();
        VfioContainer played = VfioContainer.borrow(iommufd.fd().acquire())) {
      group.setContainer(played);
      played.setIommu(VFIO_TYPE1v2_IOMMU);
      played.mapDma(BASE, memory.segment().address(), 16 * PAGE, ACCESS);
      assertTrue(iommufd.getVfioIoas().isPresent());
      assertTrue(played.info().migration().isEmpty());
      refused(Errno.ENOTTY, () -> played.setDirtyTracking(true));
      refused(Errno.EINVAL, () -> played.unmapDma(BASE, 16 * PAGE, PAGE, bitmap.segment()));
      assertEquals(16 * PAGE, played.unmapDma(BASE, 16 * PAGE));
      group.unsetContainer();
      iommufd.fd().release();
    }
  }
}
