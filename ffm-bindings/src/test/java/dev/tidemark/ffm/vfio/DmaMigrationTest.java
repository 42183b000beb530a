package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.DmaLab.BASE;
import static dev.tidemark.ffm.vfio.DmaLab.PAGE;
import static dev.tidemark.ffm.vfio.DmaLab.pages;
import static dev.tidemark.ffm.vfio.DmaLab.refused;
import static dev.tidemark.ffm.vfio.DmaLab.says;
import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.LabDevices;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.BitSet;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** A device that writes on its way through the migration states, with its log and its stream. */
@Tag("lab-vtd")
class DmaMigrationTest {
  /** Of the state without the bulk: a head of 24 bytes, a tail of 56. */
  private static final long SMALLEST = 24 + 56;

  private final DmaLab lab = new DmaLab(DmaDevice.FULL);
  private final VfioDevice vfio = lab.vfio;

  @AfterEach
  void close() {
    lab.close();
  }

  private static void move(VfioDevice device, int state) {
    assertTrue(device.setMigDeviceState(state).isEmpty(), stateName(state));
    assertEquals(state, device.migDeviceState());
  }

  private static VfioMigrationStream open(VfioDevice device, int state) {
    VfioMigrationStream stream = device.setMigDeviceState(state).orElseThrow();
    assertEquals(state, device.migDeviceState());
    return stream;
  }

  private static byte[] readAll(VfioMigrationStream stream) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(1 << 18);
      long length = 0;
      long read;
      while ((read = stream.read(buffer.asSlice(length))) > 0) {
        length += read;
      }
      return buffer.asSlice(0, length).toArray(JAVA_BYTE);
    }
  }

  private static void write(VfioMigrationStream stream, byte[] state, int from, int to) {
    try (Arena arena = Arena.ofConfined()) {
      stream.write(arena.allocateFrom(JAVA_BYTE, state).asSlice(from, to - from));
    }
  }

  private static byte[] save(VfioDevice device) {
    try (VfioMigrationStream stream = open(device, VFIO_DEVICE_STATE_STOP_COPY)) {
      refused(Errno.EINVAL, stream::precopyInfo);
      return readAll(stream);
    }
  }

  @Test
  void dmaEndsWhereTheStateSaysSo() {
    for (int state :
        new int[] {
          VFIO_DEVICE_STATE_RUNNING_P2P,
          VFIO_DEVICE_STATE_PRE_COPY_P2P,
          VFIO_DEVICE_STATE_PRE_COPY,
          VFIO_DEVICE_STATE_RUNNING
        }) {
      vfio.setMigDeviceState(state).ifPresent(VfioMigrationStream::close);
      lab.write(1);
    }
    for (int state :
        new int[] {
          VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_RESUMING
        }) {
      vfio.setMigDeviceState(state).ifPresent(VfioMigrationStream::close);
      refused(Errno.EBUSY, () -> lab.write(1));
    }
    assertEquals(4, lab.device.writes());
  }

  @Test
  void aStoppedDeviceHasNoWriteAndNoMarkInFlight() throws InterruptedException {
    lab.start();
    lab.device.delayMarks(2000);
    lab.device.program(BASE, DmaLab.BYTES, 8, 3);
    lab.device.run(0);
    while (lab.device.writes() < 20) {
      Thread.sleep(1);
    }
    move(vfio, VFIO_DEVICE_STATE_STOP);
    long writes = lab.device.writes();
    assertEquals(0, lab.device.inFlight());
    assertEquals(lab.written(), lab.report());
    Thread.sleep(50);
    assertEquals(writes, lab.device.writes());
    assertEquals(new BitSet(), lab.report());
    move(vfio, VFIO_DEVICE_STATE_RUNNING);
    while (lab.device.writes() == writes) {
      Thread.sleep(1);
    }
  }

  @Test
  void theLogGoesOnThroughAllStates() {
    lab.start();
    int page = 0;
    for (int state :
        new int[] {
          VFIO_DEVICE_STATE_RUNNING_P2P,
          VFIO_DEVICE_STATE_STOP,
          VFIO_DEVICE_STATE_STOP_COPY,
          VFIO_DEVICE_STATE_RESUMING
        }) {
      vfio.reset();
      lab.write(++page);
      vfio.setMigDeviceState(state).ifPresent(VfioMigrationStream::close);
      assertEquals(PAGE, lab.device.logging());
      assertEquals(pages(page), lab.report());
    }
  }

  @Test
  void aDeviceBehindAnIommuSharesTheAddressSpace() throws IOException {
    try (VfioDevice card = VfioDevice.open(LabDevices.pci().cdev())) {
      card.bindIommufd(lab.iommufd);
      card.attach(lab.ioas);
      lab.start();
      for (int page = 0; page < 33; page++) {
        lab.write(page * 5);
      }
      assertEquals(lab.written(), lab.report());
      assertEquals(33, lab.written().cardinality());
      card.detach();
    }
  }

  @Test
  void anotherDeviceTakesTheStateAndGoesOn() {
    lab.device.state(100_000, 42);
    lab.device.program(BASE, 64 * PAGE, 16, 7);
    lab.device.burst(100);
    assertEquals(100_000 + SMALLEST, vfio.migDataSize());
    byte[] state = save(vfio);
    assertEquals(100_000 + SMALLEST, state.length);
    try (DmaDevice second = DmaDevice.open(DmaDevice.FULL_TOO, lab.iommufd)) {
      VfioDevice other = second.vfio();
      other.attach(lab.ioas);
      try (VfioMigrationStream stream = open(other, VFIO_DEVICE_STATE_RESUMING)) {
        write(stream, state, 0, 1000);
        write(stream, state, 1000, state.length);
      }
      move(other, VFIO_DEVICE_STATE_STOP);
      assertArrayEquals(state, save(other), "byte for byte");
      move(other, VFIO_DEVICE_STATE_RUNNING);
      move(vfio, VFIO_DEVICE_STATE_RUNNING);
      lab.memory.segment().fill((byte) 0);
      lab.device.burst(50);
      byte[] first = lab.memory.segment().toArray(JAVA_BYTE);
      lab.memory.segment().fill((byte) 0);
      second.burst(50);
      assertEquals(-1, MemorySegment.ofArray(first).mismatch(lab.memory.segment()));
    }
  }

  @Test
  void preCopyCountsDownAndUpAgain() {
    lab.device.state(8192, 1);
    byte[] first;
    byte[] second;
    byte[] third;
    try (VfioMigrationStream stream = open(vfio, VFIO_DEVICE_STATE_PRE_COPY)) {
      assertEquals(new VfioMigrationStream.PrecopyInfo(8192 + 24, 0), stream.precopyInfo());
      first = readAll(stream);
      assertEquals(new VfioMigrationStream.PrecopyInfo(0, 0), stream.precopyInfo());
      lab.device.dirtyState(64);
      lab.device.dirtyState(36);
      assertEquals(new VfioMigrationStream.PrecopyInfo(0, 100), stream.precopyInfo());
      second = readAll(stream);
      assertEquals(100, second.length);
      move(vfio, VFIO_DEVICE_STATE_PRE_COPY_P2P);
      lab.device.dirtyState(8);
      move(vfio, VFIO_DEVICE_STATE_STOP_COPY);
      refused(Errno.EINVAL, stream::precopyInfo);
      third = readAll(stream);
      assertEquals(8 + 56, third.length);
    }
    move(vfio, VFIO_DEVICE_STATE_STOP);
    try (VfioMigrationStream stream = open(vfio, VFIO_DEVICE_STATE_RESUMING)) {
      for (byte[] part : List.of(first, second, third)) {
        write(stream, part, 0, part.length);
      }
    }
    move(vfio, VFIO_DEVICE_STATE_RUNNING);
  }

  @Test
  void aStreamThatIsCutOffOrDamagedIsRefused() {
    lab.device.state(800, 5);
    byte[] state = save(vfio);
    for (int length : new int[] {0, 23, (int) SMALLEST, state.length - 1}) {
      move(vfio, VFIO_DEVICE_STATE_STOP);
      try (VfioMigrationStream stream = open(vfio, VFIO_DEVICE_STATE_RESUMING)) {
        write(stream, state, 0, length);
        says(
            "is in RESUMING",
            refused(Errno.EINVAL, () -> vfio.setMigDeviceState(VFIO_DEVICE_STATE_STOP)));
        refused(Errno.EINVAL, () -> vfio.setMigDeviceState(VFIO_DEVICE_STATE_RUNNING));
      }
      vfio.reset();
      assertEquals(VFIO_DEVICE_STATE_RUNNING, vfio.migDeviceState());
    }
    for (int at : new int[] {0, 30, state.length - 56}) {
      state[at] ^= 4;
      move(vfio, VFIO_DEVICE_STATE_STOP);
      try (VfioMigrationStream stream = open(vfio, VFIO_DEVICE_STATE_RESUMING)) {
        write(stream, state, 0, state.length);
        refused(Errno.EINVAL, () -> vfio.setMigDeviceState(VFIO_DEVICE_STATE_STOP));
      }
      vfio.reset();
      state[at] ^= 4;
    }
  }

  @Test
  void aFailureLeadsToErrorAndOnlyAResetOut() {
    lab.start();
    lab.write(1);
    try (VfioMigrationStream stream = open(vfio, VFIO_DEVICE_STATE_PRE_COPY)) {
      lab.device.failNextState(Errno.EIO);
      says(
          "to STOP_COPY, is in ERROR",
          refused(Errno.EIO, () -> vfio.setMigDeviceState(VFIO_DEVICE_STATE_STOP_COPY)));
      refused(Errno.ENODEV, () -> readAll(stream));
      refused(Errno.ENODEV, stream::precopyInfo);
    }
    for (int state : new int[] {VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_STOP}) {
      says("reset", refused(Errno.EINVAL, () -> vfio.setMigDeviceState(state)));
    }
    refused(Errno.EBUSY, () -> lab.write(2));
    assertEquals(pages(1), lab.report(), "the log is another matter");
    vfio.reset();
    assertEquals(VFIO_DEVICE_STATE_RUNNING, vfio.migDeviceState());
    lab.write(3);
    assertEquals(pages(3), lab.report());
  }

  @Test
  void whatTheFlagsDoNotOfferIsRefused() {
    int[][] table = {
      {
        DmaDevice.STOP_COPY,
        1,
        VFIO_DEVICE_STATE_RUNNING_P2P,
        VFIO_DEVICE_STATE_PRE_COPY,
        VFIO_DEVICE_STATE_PRE_COPY_P2P
      },
      {DmaDevice.P2P, 3, VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_PRE_COPY_P2P},
      {DmaDevice.PRE_COPY, 5, VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_PRE_COPY_P2P}
    };
    for (int[] row : table) {
      try (DmaDevice device = DmaDevice.open(row[0], lab.iommufd)) {
        assertEquals(row[1], device.vfio().migrationFlags());
        for (int i = 2; i < row.length; i++) {
          int state = row[i];
          refused(Errno.EINVAL, () -> device.vfio().setMigDeviceState(state));
        }
        byte[] state = save(device.vfio());
        assertEquals(SMALLEST, state.length);
        move(device.vfio(), VFIO_DEVICE_STATE_STOP);
        try (VfioMigrationStream stream = open(device.vfio(), VFIO_DEVICE_STATE_RESUMING)) {
          write(stream, state, 0, state.length);
        }
        move(device.vfio(), VFIO_DEVICE_STATE_RUNNING);
      }
    }
  }

  @Test
  void aStreamOutlivesItsDevice() {
    VfioMigrationStream stream = open(vfio, VFIO_DEVICE_STATE_STOP_COPY);
    lab.device.close();
    refused(Errno.ENODEV, () -> readAll(stream));
    stream.close();
    try (DmaDevice again = DmaDevice.open(DmaDevice.FULL, lab.iommufd)) {
      assertEquals(VFIO_DEVICE_STATE_RUNNING, again.vfio().migDeviceState());
      assertFalse(again.isRunning());
    }
  }
}
