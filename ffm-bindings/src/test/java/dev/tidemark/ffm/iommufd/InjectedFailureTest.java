package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.LabIommu.ACCESS;
import static dev.tidemark.ffm.iommufd.LabIommu.IO_PAGE;
import static dev.tidemark.ffm.iommufd.LabIommu.START;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.lab.FailNth;
import dev.tidemark.ffm.lab.LabMemory;
import java.lang.foreign.ValueLayout;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Each step that the kernel can fail in each call, failed once: the call says so or has done its
 * work, and nothing is left behind that keeps it from working afterwards.
 */
@Tag("lab-mock")
class InjectedFailureTest {
  private static final long BYTES = 64 * IO_PAGE;

  private final LabIommu lab = new LabIommu(0);
  private final LabMemory memory = LabMemory.shared(BYTES);

  @AfterEach
  void close() {
    lab.close();
    memory.close();
  }

  private void map() {
    lab.ioas.mapFixed(START, memory.address(), BYTES, ACCESS);
  }

  private void unmap() {
    assertEquals(BYTES, lab.ioas.unmap(START, BYTES));
  }

  @Test
  void mapping() {
    FailNth.sweep(this::map, this::unmap);
  }

  @Test
  void unmapping() {
    map();
    FailNth.sweep(this::unmap, this::map);
  }

  @Test
  void makingAnAddressSpace() {
    Ioas[] made = new Ioas[1];
    FailNth.sweep(() -> made[0] = lab.iommufd.allocIoas(), () -> made[0].close());
  }

  @Test
  void makingAPageTable() {
    map();
    Hwpt[] made = new Hwpt[1];
    FailNth.sweep(() -> made[0] = lab.tracking(lab.ioas), () -> made[0].close());
  }

  @Test
  void copying() {
    map();
    FailNth.sweep(
        () -> lab.ioas.copyFixed(START + 2 * BYTES, lab.ioas, START, BYTES, ACCESS),
        () -> lab.ioas.unmap(START + 2 * BYTES, BYTES));
  }

  @Test
  void enabling() {
    map();
    try (Hwpt table = lab.tracking(lab.ioas)) {
      FailNth.sweep(() -> table.setDirtyTracking(true), () -> table.setDirtyTracking(false));
    }
  }

  @Test
  void allowingAddresses() {
    FailNth.sweep(
        () -> lab.ioas.allowIovas(List.of(new IovaRange(START, START + BYTES - 1))),
        () -> lab.ioas.allowIovas(List.of()));
  }

  @Test
  void asking() {
    FailNth.sweep(() -> lab.ioas.iovaRanges(), () -> {});
    FailNth.sweep(() -> lab.iommufd.getHwInfo(lab.device.deviceId()), () -> {});
  }

  /** The mode of accounting takes no step that can fail. */
  @Test
  void options() {
    FailNth.sweep(() -> lab.ioas.setHugePages(false), () -> lab.ioas.setHugePages(true));
    FailNth.sweep(() -> lab.ioas.getHugePages(), () -> {});
  }

  /** Asking for it and clearing it take no step that can fail. */
  @Test
  void theAddressSpaceForContainers() {
    try (Iommufd other = Iommufd.open();
        Ioas ioas = other.allocIoas()) {
      FailNth.sweep(() -> other.setVfioIoas(ioas), other::clearVfioIoas);
    }
  }

  @Test
  void takingDirtyPages() {
    map();
    try (Hwpt table = lab.tracking(lab.ioas);
        Mapping bitmap = Mapping.guarded(64)) {
      lab.mock.replace(lab.device, table);
      table.setDirtyTracking(true);
      FailNth.sweep(
          () -> {
            bitmap.segment().fill((byte) 0);
            lab.mock.dirty(table, START + 3 * IO_PAGE);
          },
          () -> table.getDirtyBitmap(START, BYTES, IO_PAGE, 0, bitmap.segment()),
          () -> assertEquals(8, bitmap.segment().get(ValueLayout.JAVA_LONG, 0)));
      lab.mock.replace(lab.device, lab.ioas);
    }
  }

  @Test
  void destroying() {
    for (int nth = 1; nth < 20; nth++) {
      Ioas made = lab.iommufd.allocIoas();
      int id = made.id();
      FailNth.run(
          nth,
          () -> {
            try {
              made.close();
            } catch (LinuxException e) {
              assertTrue(e.errno() > 0);
            }
          });
      made.close();
      try (Ioas next = lab.iommufd.allocIoas()) {
        assertEquals(id, next.id(), "destroyed in the end");
      }
    }
  }
}
