package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.DeviceLogSource.REPORT_WAITS;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static dev.tidemark.engine.source.dma.LogLab.PAGE;
import static dev.tidemark.engine.source.dma.LogLab.iova;
import static dev.tidemark.engine.source.dma.LogLab.range;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.LabDevices;
import dev.tidemark.ffm.vfio.DmaRange;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What kernels and drivers do to a log, each thing once; in the lab. */
@Tag("lab-mock")
class DeviceLogFaultTest {
  private static final Path DRIVER = Path.of("/sys/bus/platform/drivers/dmalog");

  private static void assertEverything(LogLab lab, BitSet all) {
    assertEquals(all.cardinality(), lab.tracker.pagesAtStop(0));
    lab.tracker.lastSync();
    assertEquals(all, lab.harvest(0));
  }

  @ParameterizedTest
  @ValueSource(
      ints = {
        Errno.EINVAL,
        Errno.E2BIG,
        Errno.EFAULT,
        Errno.EOVERFLOW,
        Errno.EBUSY,
        Errno.ENOMEM,
        Errno.ENOTTY,
        Errno.EOPNOTSUPP,
        Errno.EIO,
        Errno.ENODEV
      })
  void aStartThatIsRefusedIsNoMatterOfWhichErrno(int errno) {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 100, 0, 8, true);
      lab.devices.get(1).refuseLogging(errno);
      lab.start();
      String refusal = lab.source.refusal().orElseThrow();
      assertTrue(refusal.contains("DMA_LOGGING_START"), refusal);
      assertTrue(refusal.contains(Errno.name(errno)), refusal);
      assertEquals(0, lab.devices.get(0).logging(), "nobody logs for nothing");
      assertEverything(lab, range(8, 108));
      lab.devices.get(1).refuseLogging(0);
      lab.tracker.stop();
      lab.start();
      assertEquals(Optional.empty(), lab.source.refusal());
      lab.write(1, 7);
      assertEquals(set(15), lab.take(0));
    }
  }

  @Test
  void aLogThatSomebodyElseStartedIsNotOurs() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 100, 0, 8, true);
      DmaDevice device = lab.devices.get(1);
      device.vfio().dmaLoggingStart(PAGE, List.of(new DmaRange(0, PAGE)));
      lab.start();
      lab.write(1, 7);
      assertEquals(set(), lab.take(0));
      assertEverything(lab, range(8, 108));
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {1L << 31, 1L << 40})
  void aLogInPagesOfMoreThanAGibIsRefused(long tracked) {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 1024)) {
      lab.map(0, 100, 0, 8, true);
      lab.devices.getFirst().trackIn(tracked);
      lab.start();
      String refusal = lab.source.refusal().orElseThrow();
      assertTrue(refusal.contains(tracked + " bytes"), refusal);
      assertEquals(0, lab.devices.getFirst().logging());
      assertEverything(lab, range(8, 108));
    }
  }

  @Test
  void aLogInPagesOfAGibIsSound() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 100, 0, 8, true);
      lab.map(100, 600, 0, 300, true);
      lab.devices.getFirst().trackIn(1 << 30);
      lab.start();
      lab.write(1, 7);
      assertEquals(set(15), lab.take(0));
      lab.write(0, 7);
      BitSet all = range(8, 108);
      all.set(300, 900);
      assertEquals(all, lab.take(0));
      assertEquals(0, lab.tracker.failures());
    }
  }

  /** Asked for a part of its pages it would write past the bitmap, or nothing at all. */
  @Test
  void aDeviceThatReportsWholePagesIsAskedForWholePages() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 1000, 512)) {
      DmaDevice device = lab.devices.getFirst();
      device.trackIn(2 << 20);
      device.clip(false);
      // In the middle of tracked pages at both ends, and up to the last page of the block.
      lab.map(300, 1000, 0, 0, true);
      lab.map(1300, 64, 1, 448, true);
      lab.start();
      for (long at : new long[] {300, 1299, 1300, 1363}) {
        BitSet must = new BitSet();
        lab.write(0, at);
        lab.tracker.sync();
        lab.tracker.harvest();
        int block = at < 1300 ? 0 : 1;
        must.set((int) (block == 0 ? at - 300 : at - 852));
        must.andNot(LabDma.pagesOf(lab.log(block).epoch()));
        assertEquals(set(), must, "page " + at);
        lab.tracker.commit();
        assertEquals(set(), lab.take(0), "page " + at);
      }
      lab.write(0, 1363);
      assertEquals(64, lab.unmap(1300, 64));
      lab.tracker.sync();
      lab.tracker.harvest();
      assertTrue(LabDma.pagesOf(lab.log(1).epoch()).get(511));
      lab.tracker.commit();
      assertEquals(0, lab.tracker.failures());
    }
  }

  @Test
  void aDeviceThatTakesNoReportAcrossRangesGetsNone() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 4096)) {
      DmaDevice device = lab.devices.getFirst();
      device.strict(true);
      // One run of IOVA and of the block, across the end of the first range.
      long below = (1L << 32) - 1000 * PAGE;
      lab.source.map(below, 1000 * PAGE, lab.log(0), 0, true);
      lab.source.map(1L << 32, 1000 * PAGE, lab.log(0), 1000, true);
      lab.map(0, 100, 0, 3000, true);
      lab.start();
      assertEquals(2, lab.source.ranges().size());
      device.write(below + 999 * PAGE, 1);
      device.write(1L << 32, 1);
      lab.write(0, 5);
      assertEquals(set(999, 1000, 3005), lab.take(0));
      device.write(below + 999 * PAGE, 1);
      device.write(1L << 32, 1);
      assertEquals(2000 * PAGE, lab.source.unmap(below, 2000 * PAGE));
      BitSet taken = lab.take(0);
      assertTrue(taken.get(999) && taken.get(1000));
      assertEquals(0, lab.tracker.failures());
    }
  }

  @Test
  void anErrorInTheMiddleKeepsWhatArrivedAndMarksTheRest() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 1024)) {
      lab.map(0, 512, 0, 8, true);
      lab.start();
      for (int page = 0; page < 512; page++) {
        lab.write(0, page);
      }
      lab.devices.getFirst().failReport(1, 192);
      RuntimeException failure =
          assertThrows(LinuxException.class, lab.source::sync, "without a tracker");
      assertTrue(failure.getMessage().contains("DMA_LOGGING_REPORT"), failure.getMessage());
      // Before the marks are merged: what the device delivered.
      assertTrue(lab.log(0).dirtyPages() >= 192, lab.log(0).dirtyPages() + " pages");
      lab.log(0).mergeMarks();
      assertEquals(range(8, 520), lab.harvest(0));
      lab.write(0, 1);
      assertEquals(set(9), lab.take(0));
    }
  }

  @Test
  void aDeviceThatIsDetachedOrStoppedStillTellsWhatItWrote() {
    try (LogLab lab = new LogLab(0, REPORT_WAITS, 1024)) {
      DmaDevice device = lab.open(DmaDevice.STOP_COPY);
      lab.source.add(device.vfio());
      lab.map(0, 100, 0, 8, true);
      lab.start();
      device.write(iova(1), 1);
      device.vfio().detach();
      assertEquals(set(9), lab.take(0));
      device.vfio().attach(lab.ioas);
      device.write(iova(2), 1);
      device.vfio().setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_STOP);
      assertEquals(set(10), lab.take(0));
      assertEquals(set(), lab.take(0));
      device.vfio().setMigDeviceState(VfioUapi.VFIO_DEVICE_STATE_RUNNING);
      device.write(iova(3), 1);
      assertEquals(set(11), lab.take(0));
      assertEquals(0, lab.tracker.failures());
    }
  }

  @Test
  void aDeviceThatIsClosedWhileItLogsOpensAsNew() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 1024)) {
      lab.map(0, 100, 0, 8, true);
      lab.start();
      lab.write(0, 1);
      DmaDevice gone = lab.devices.getFirst();
      gone.close();
      lab.source.remove(gone.vfio());
      assertEquals(range(8, 108), lab.take(0), "its last report is not there");
      DmaDevice again = lab.open(DmaDevice.PLAIN);
      assertEquals(0, again.logging());
      lab.source.add(again.vfio());
      assertEquals(range(8, 108), lab.take(0));
      again.write(iova(2), 2);
      assertEquals(set(10), lab.take(0));
      assertEquals(0, lab.tracker.failures());
    }
  }

  private static void driver(String command, LabDevices device) {
    try {
      Files.writeString(DRIVER.resolve(command), device.name());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Test
  void aDeviceThatIsTakenAwayLogsUntilItIsRemoved() throws InterruptedException {
    LabDevices names = DmaDevice.names(DmaDevice.STOP_COPY);
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 100, 0, 8, true);
      lab.start();
      DmaDevice leaving = lab.devices.get(DmaDevice.STOP_COPY);
      Thread taker = new Thread(() -> driver("unbind", names));
      taker.start();
      while (leaving.removalRequests() == 0) {
        Thread.sleep(1);
      }
      lab.write(1, 1);
      assertEquals(set(9), lab.take(0));
      lab.write(1, 2);
      lab.write(0, 3);
      lab.source.remove(leaving.vfio());
      leaving.close();
      taker.join();
      assertEquals(set(10, 11), lab.take(0));
      assertEquals(0, lab.tracker.failures());
      driver("bind", names);
    }
  }

  @Test
  void memoryThatTheDeviceCannotWriteIsNotDirtyElsewhere() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 1024)) {
      lab.map(0, 10, 0, 0, true);
      lab.map(10, 10, 0, 10, false);
      lab.map(30, 10, 0, 30, true);
      lab.start();
      DmaDevice device = lab.devices.getFirst();
      assertThrows(LinuxException.class, () -> device.write(iova(12), 1));
      assertThrows(LinuxException.class, () -> device.write(iova(25), 1));
      device.write(iova(30), 1);
      assertEquals(set(30), lab.take(0));
      assertEquals(0, lab.tracker.failures());
    }
  }
}
