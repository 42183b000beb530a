package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.DmaLab.allFrom;
import static dev.tidemark.ffm.vfio.DmaLab.bits;
import static dev.tidemark.ffm.vfio.DmaLab.pages;
import static dev.tidemark.ffm.vfio.DmaLab.refused;
import static dev.tidemark.ffm.vfio.DmaLab.says;
import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.FailNth;
import dev.tidemark.ffm.lab.LabDevices;
import dev.tidemark.ffm.lab.LockedMemory;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.util.BitSet;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** A device of our own in a type1 container, which tracks its writes by itself, exactly. */
@Tag("lab-vtd")
class DmaType1Test {
  private static final long PAGE = 4096;
  private static final int PAGES = 512;
  private static final long BASE = 1L << 24;
  private static final int ACCESS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;

  private final VfioContainer container = VfioContainer.open();
  private final VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PLAIN).group());
  private final Mapping memory = Mapping.anonymous(PAGES * PAGE);
  private final Mapping bitmap = Mapping.guarded(PAGES / 8);
  private final DmaDevice device;

  DmaType1Test() {
    group.setContainer(container);
    container.setIommu(VFIO_TYPE1v2_IOMMU);
    device = DmaDevice.open(DmaDevice.PLAIN, group);
    map();
  }

  @AfterEach
  void close() {
    device.close();
    group.close();
    container.close();
    memory.close();
    bitmap.close();
  }

  private void map() {
    container.mapDma(BASE, memory.segment().address(), PAGES * PAGE, ACCESS);
  }

  private void write(int... pages) {
    for (int page : pages) {
      device.write(BASE + page * PAGE, page);
    }
  }

  private BitSet get() {
    bitmap.segment().fill((byte) 0);
    container.getDirtyBitmap(BASE, PAGES * PAGE, PAGE, bitmap.segment());
    return bits(bitmap.segment());
  }

  /** What is mapped is dirty when tracking begins. */
  private void track() {
    container.setDirtyTracking(true);
    get();
  }

  @Test
  void theContainerHasExactlyWhatWasWritten() {
    track();
    write(1, 7, 63, 64, 511);
    assertEquals(7, memory.segment().get(JAVA_LONG, 7 * PAGE));
    try (Arena arena = Arena.ofConfined()) {
      device.write(BASE + 100 * PAGE - 4, arena.allocate(8));
      device.read(BASE + 300 * PAGE, arena.allocate(8));
    }
    assertEquals(pages(1, 7, 63, 64, 99, 100, 511), get());
    assertEquals(new BitSet(), get(), "cleared by the first");
  }

  @Test
  void theThreadsWritesAreThereToo() throws InterruptedException {
    track();
    device.program(BASE, PAGES * PAGE, 8, 5);
    device.run(2000);
    BitSet seen = new BitSet();
    while (device.writes() < 100) {
      seen.or(get());
      Thread.sleep(5);
    }
    device.pause();
    seen.or(get());
    try (Arena arena = Arena.ofConfined()) {
      var record = arena.allocate(PAGES / 8);
      device.written(BASE, record);
      assertEquals(bits(record), seen);
    }
  }

  @Test
  void theDevicesLogAndTheContainersAgree() {
    track();
    VfioDevice vfio = device.vfio();
    assertEquals(PAGE, vfio.dmaLoggingStart(PAGE, List.of(new DmaRange(BASE, PAGES * PAGE))));
    device.program(BASE, PAGES * PAGE, 64, 11);
    device.burst(200);
    BitSet both = get();
    bitmap.segment().fill((byte) 0);
    vfio.dmaLoggingReport(BASE, PAGES * PAGE, PAGE, bitmap.segment());
    assertEquals(both, bits(bitmap.segment()));
  }

  @Test
  void anUnmapTellsWhatWasWrittenAndTheDevicesLogStays() {
    track();
    VfioDevice vfio = device.vfio();
    vfio.dmaLoggingStart(PAGE, List.of(new DmaRange(BASE, PAGES * PAGE)));
    write(2, 3, 200);
    bitmap.segment().fill((byte) 0);
    assertEquals(PAGES * PAGE, container.unmapDma(BASE, PAGES * PAGE, PAGE, bitmap.segment()));
    assertEquals(pages(2, 3, 200), bits(bitmap.segment()));
    refused(Errno.EINVAL, () -> write(4));
    bitmap.segment().fill((byte) 0);
    vfio.dmaLoggingReport(BASE, PAGES * PAGE, PAGE, bitmap.segment());
    BitSet seen = bits(bitmap.segment());
    seen.clear(4);
    assertEquals(pages(2, 3, 200), seen);
  }

  @Test
  void aGroupThatJoinsMakesEverythingDirtyAndOnceMoreWhenItLeft() throws IOException {
    track();
    write(5);
    assertEquals(pages(5), get());
    try (VfioGroup card = VfioGroup.open(LabDevices.pci().group())) {
      card.setContainer(container);
      for (int i = 0; i < 2; i++) {
        assertEquals(allFrom(0, PAGES), get());
      }
      card.unsetContainer();
      assertEquals(allFrom(0, PAGES), get());
    }
    assertEquals(new BitSet(), get());
    write(6);
    assertEquals(pages(6), get());
  }

  /** A device without an IOMMU has nothing pinned; one with it, all that was mapped before. */
  @Test
  void aGroupWhoseIommuPinsMoreThanTheLimitStaysOutside() throws Exception {
    container.unmapAll();
    try (VfioGroup card = VfioGroup.open(LabDevices.pci().group())) {
      LockedMemory.limit(
          16 * PAGE,
          () -> {
            map();
            track();
            refused(Errno.ENOMEM, () -> card.setContainer(container));
            write(5);
            assertEquals(pages(5), get(), "as exact as before");
          });
      assertEquals(VFIO_GROUP_FLAGS_VIABLE, card.status());
    }
  }

  @Test
  void groupAndCharacterDeviceExcludeEachOther() {
    try (Iommufd iommufd = Iommufd.open()) {
      says("close its group", refused(Errno.EBUSY, () -> DmaDevice.open(DmaDevice.PLAIN, iommufd)));
    }
  }

  @Test
  void whatIsRefusedSaysWhatToDo() {
    says("take it out", refused(Errno.EINVAL, () -> group.setContainer(container)));
    says("close its devices", refused(Errno.EBUSY, group::unsetContainer));
    says("no such device", refused(Errno.ENODEV, () -> group.openDevice("dmalog.99")));
    says("unmap", refused(Errno.EEXIST, this::map));
    says("tracking on", refused(Errno.EINVAL, this::get));
    says("whole mappings", refused(Errno.EINVAL, () -> container.unmapDma(BASE, PAGE)));
  }

  /** Unmapping and asking for dirty pages take no step that can fail. */
  @Test
  void eachStepThatCanFailIsSurvived() throws IOException {
    FailNth.sweep(() -> container.setDirtyTracking(true), () -> container.setDirtyTracking(false));
    FailNth.sweep(container::info, () -> {});
    container.setDirtyTracking(true);
    container.unmapAll();
    Runnable unmap = () -> assertEquals(PAGES * PAGE, container.unmapDma(BASE, PAGES * PAGE));
    FailNth.sweep(this::map, unmap);
    // The same with an IOMMU's page table, which takes memory.
    try (VfioGroup card = VfioGroup.open(LabDevices.pci().group())) {
      FailNth.sweep(() -> card.setContainer(container), card::unsetContainer);
      card.setContainer(container);
      FailNth.sweep(this::map, unmap);
    }
    device.close();
    String name = DmaDevice.names(DmaDevice.PLAIN).name();
    VfioDevice[] opened = new VfioDevice[1];
    FailNth.sweep(() -> opened[0] = group.openDevice(name), () -> opened[0].close());
    group.unsetContainer();
    group.setContainer(container);
    FailNth.sweep(
        () -> container.setIommu(VFIO_TYPE1v2_IOMMU),
        () -> {
          group.unsetContainer();
          group.setContainer(container);
        });
  }
}
