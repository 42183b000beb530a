package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.LabIommu.ACCESS;
import static dev.tidemark.ffm.iommufd.LabIommu.IO_PAGE;
import static dev.tidemark.ffm.iommufd.LabIommu.START;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.lab.FailNth;
import dev.tidemark.ffm.lab.LabMemory;
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

  /**
   * Sweeps over a call.
   *
   * @param call done with failures
   * @param undo brings back the state before, after a call that was done
   */
  private static void sweep(Runnable call, Runnable undo) {
    call.run();
    undo.run();
    boolean[] done = new boolean[1];
    Runnable attempt =
        () -> {
          done[0] = false;
          try {
            call.run();
            done[0] = true;
          } catch (LinuxException e) {
            assertTrue(e.errno() > 0);
          }
        };
    // The first round only loads the classes of the failing way.
    FailNth.run(1, attempt);
    if (done[0]) {
      undo.run();
    }
    int failures = 0;
    int nth = 1;
    while (FailNth.run(nth++, attempt)) {
      assertTrue(nth < 1000, "no end of steps that can fail");
      if (done[0]) {
        undo.run();
      } else {
        failures++;
        call.run();
        undo.run();
      }
    }
    assertTrue(done[0], "nothing failed, yet the call did");
    undo.run();
    assertTrue(failures > 0, "nothing could fail");
  }

  private void map() {
    lab.ioas.mapFixed(START, memory.address(), BYTES, ACCESS);
  }

  private void unmap() {
    assertEquals(BYTES, lab.ioas.unmap(START, BYTES));
  }

  @Test
  void mapping() {
    sweep(this::map, this::unmap);
  }

  @Test
  void unmapping() {
    map();
    sweep(this::unmap, this::map);
  }

  @Test
  void makingAnAddressSpace() {
    Ioas[] made = new Ioas[1];
    sweep(() -> made[0] = lab.iommufd.allocIoas(), () -> made[0].close());
  }

  @Test
  void makingAPageTable() {
    map();
    Hwpt[] made = new Hwpt[1];
    sweep(() -> made[0] = lab.tracking(lab.ioas), () -> made[0].close());
  }

  @Test
  void copying() {
    map();
    sweep(
        () -> lab.ioas.copyFixed(START + 2 * BYTES, lab.ioas, START, BYTES, ACCESS),
        () -> lab.ioas.unmap(START + 2 * BYTES, BYTES));
  }

  @Test
  void enabling() {
    map();
    try (Hwpt table = lab.tracking(lab.ioas)) {
      sweep(() -> table.setDirtyTracking(true), () -> table.setDirtyTracking(false));
    }
  }

  @Test
  void allowingAddresses() {
    sweep(
        () -> lab.ioas.allowIovas(List.of(new IovaRange(START, START + BYTES - 1))),
        () -> lab.ioas.allowIovas(List.of()));
  }

  @Test
  void asking() {
    sweep(() -> lab.ioas.iovaRanges(), () -> {});
    sweep(() -> lab.iommufd.getHwInfo(lab.device.deviceId()), () -> {});
    sweep(() -> lab.ioas.setHugePages(true), () -> {});
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
