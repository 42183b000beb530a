package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.lab.LabDevices;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** A mediated device that migrates ({@code samples/vfio-mdev/mtty.c}). Its DMA log is a stub. */
@Tag("lab-vtd")
class MttyTest {
  private static final long PAGE = 4096;

  private Iommufd iommufd;
  private VfioDevice device;
  private int id;

  @BeforeEach
  void open() throws IOException {
    iommufd = Iommufd.open();
    device = VfioDevice.open(LabDevices.mtty().cdev());
    id = device.bindIommufd(iommufd);
  }

  @AfterEach
  void close() {
    device.close();
    iommufd.close();
  }

  private static void refused(int errno, Runnable call) {
    assertEquals(errno, assertThrows(LinuxException.class, call::run).errno());
  }

  private void move(int state) {
    assertTrue(device.setMigDeviceState(state).isEmpty(), stateName(state));
    assertEquals(state, device.migDeviceState());
  }

  private VfioMigrationStream moveWithStream(int state) {
    VfioMigrationStream stream = device.setMigDeviceState(state).orElseThrow();
    assertEquals(state, device.migDeviceState());
    return stream;
  }

  private static byte[] readAll(VfioMigrationStream stream) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(1 << 16);
      long length = 0;
      long read;
      while ((read = stream.read(buffer.asSlice(length))) > 0) {
        length += read;
      }
      return buffer.asSlice(0, length).toArray(JAVA_BYTE);
    }
  }

  @Test
  void aMediatedDeviceIsNoDeviceToTheIommu() {
    refused(Errno.ENOENT, () -> iommufd.getHwInfo(id));
    try (Ioas ioas = iommufd.allocIoas()) {
      refused(Errno.ENOENT, () -> iommufd.allocHwpt(id, ioas, 0));
      assertEquals(ioas.id(), device.attach(ioas));
      device.detach();
    }
  }

  @Test
  void itsFeaturesAreAsked() {
    assertEquals(
        VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
        device.migrationFlags());
    assertTrue(device.probeFeature(VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET));
    assertTrue(device.probeFeature(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_SET));
    assertTrue(!device.probeFeature(VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_SET));
    assertTrue(!device.probeFeature(77));
    assertEquals(96, device.migDataSize());
    assertEquals(VFIO_DEVICE_STATE_RUNNING, device.migDeviceState());
    VfioDevice.Info info = device.info();
    assertEquals(9, info.regions());
    assertEquals(5, info.irqs());
  }

  @Test
  void itsStateMovesThroughStopCopyAndIsTakenBack() {
    byte[] state;
    move(VFIO_DEVICE_STATE_RUNNING_P2P);
    move(VFIO_DEVICE_STATE_STOP);
    try (VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_STOP_COPY)) {
      refused(Errno.EINVAL, stream::precopyInfo);
      state = readAll(stream);
    }
    assertEquals(96, state.length);
    move(VFIO_DEVICE_STATE_STOP);
    try (VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_RESUMING);
        Arena arena = Arena.ofConfined()) {
      stream.write(arena.allocateFrom(JAVA_BYTE, state));
    }
    move(VFIO_DEVICE_STATE_STOP);
    try (VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_STOP_COPY)) {
      assertArrayEquals(state, readAll(stream));
    }
    move(VFIO_DEVICE_STATE_RUNNING);
  }

  @Test
  void preCopyAndStopCopyAreOneStream() {
    try (VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_PRE_COPY)) {
      assertTrue(stream.precopyInfo().initialBytes() > 0);
      byte[] first = readAll(stream);
      assertEquals(0, stream.precopyInfo().initialBytes());
      move(VFIO_DEVICE_STATE_PRE_COPY_P2P);
      move(VFIO_DEVICE_STATE_STOP_COPY);
      byte[] second = readAll(stream);
      assertEquals(96, first.length + second.length);
    }
    move(VFIO_DEVICE_STATE_RUNNING);
  }

  @Test
  void waysThatThereAreNotAreRefusedAndTheStateIsNamed() {
    try (VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_STOP_COPY)) {
      LinuxException refused =
          assertThrows(
              LinuxException.class, () -> device.setMigDeviceState(VFIO_DEVICE_STATE_PRE_COPY));
      assertEquals(Errno.EINVAL, refused.errno());
      assertTrue(
          refused.getMessage().contains("to PRE_COPY, is in STOP_COPY"), refused.getMessage());
      refused(Errno.EINVAL, () -> device.setMigDeviceState(VFIO_DEVICE_STATE_ERROR));
      move(VFIO_DEVICE_STATE_RUNNING);
      refused(Errno.ENODEV, () -> readAll(stream));
    }
  }

  @Test
  void stateThatIsDamagedOrCutOffIsRefused() {
    byte[] state;
    try (VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_STOP_COPY)) {
      state = readAll(stream);
    }
    move(VFIO_DEVICE_STATE_STOP);
    try (Arena arena = Arena.ofConfined();
        VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_RESUMING)) {
      MemorySegment bad = arena.allocateFrom(JAVA_BYTE, state);
      bad.set(JAVA_BYTE, 0, (byte) ~bad.get(JAVA_BYTE, 0));
      assertThrows(LinuxException.class, () -> stream.write(bad));
    }
    device.reset();
    move(VFIO_DEVICE_STATE_RUNNING);
    try (Arena arena = Arena.ofConfined();
        VfioMigrationStream stream = moveWithStream(VFIO_DEVICE_STATE_RESUMING)) {
      stream.write(arena.allocateFrom(JAVA_BYTE, state).asSlice(0, state.length - 8));
      refused(Errno.EINVAL, () -> device.setMigDeviceState(VFIO_DEVICE_STATE_STOP));
    }
    device.reset();
    move(VFIO_DEVICE_STATE_RUNNING);
  }

  @Test
  void logArgumentsAreCheckedHereOrByTheKernel() {
    refused(Errno.EINVAL, () -> device.dmaLoggingStart(PAGE, List.of()));
    List<DmaRange> many =
        LongStream.range(0, 257).mapToObj(i -> new DmaRange(i * 2 * PAGE, PAGE)).toList();
    refused(Errno.E2BIG, () -> device.dmaLoggingStart(PAGE, many));
    refused(Errno.EINVAL, () -> device.dmaLoggingStart(PAGE, List.of(new DmaRange(100, PAGE))));
    refused(
        Errno.EINVAL,
        () ->
            device.dmaLoggingStart(
                PAGE, List.of(new DmaRange(0, 4 * PAGE), new DmaRange(PAGE, PAGE))));
    refused(
        Errno.EOVERFLOW,
        () -> device.dmaLoggingStart(PAGE, List.of(new DmaRange(-PAGE, 2 * PAGE))));
    assertThrows(
        IllegalArgumentException.class,
        () -> device.dmaLoggingStart(PAGE, List.of(new DmaRange(PAGE, 0))));
    assertThrows(
        IllegalArgumentException.class,
        () -> device.dmaLoggingStart(12288, List.of(new DmaRange(0, 12288))));
    assertEquals(PAGE, device.dmaLoggingStart(PAGE, many.subList(0, 256)));
    try (Mapping bitmap = Mapping.guarded(64)) {
      device.dmaLoggingReport(0, 512 * PAGE, PAGE, bitmap.segment());
      refused(
          Errno.EOVERFLOW, () -> device.dmaLoggingReport(-PAGE, 2 * PAGE, PAGE, bitmap.segment()));
      for (long[] wrong : new long[][] {{0, PAGE}, {PAGE, 2048}, {PAGE, 0}, {513 * PAGE, PAGE}}) {
        assertThrows(
            IllegalArgumentException.class,
            () -> device.dmaLoggingReport(0, wrong[0], wrong[1], bitmap.segment()));
      }
    }
    device.dmaLoggingStop();
  }

  @Test
  void aClosedDeviceIsNotAsked() {
    device.close();
    assertThrows(ClosedException.class, device::migDeviceState);
    assertThrows(ClosedException.class, () -> device.attach(iommufd.borrowIoas(1)));
  }
}
