package dev.tidemark.bench.lab;

import static dev.tidemark.ffm.vfio.VfioUapi.VFIO_DEVICE_STATE_STOP;
import static dev.tidemark.ffm.vfio.VfioUapi.VFIO_DEVICE_STATE_STOP_COPY;

import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioMigrationStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.zip.CRC32C;

/** What a device's state is, to be compared. */
public final class DeviceState {
  private static final int CHUNK = 1 << 20;

  private DeviceState() {}

  /**
   * Reads all of a device's state and leaves it in STOP.
   *
   * @return the state's length in bytes in the upper half, its CRC-32C in the lower
   */
  public static long digest(VfioDevice device) {
    long bytes = 0;
    CRC32C sum = new CRC32C();
    try (VfioMigrationStream stream =
            device.setMigDeviceState(VFIO_DEVICE_STATE_STOP_COPY).orElseThrow();
        Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(CHUNK, Long.BYTES);
      for (long length = stream.read(buffer); length > 0; length = stream.read(buffer)) {
        sum.update(buffer.asSlice(0, length).asByteBuffer());
        bytes += length;
      }
    }
    device.setMigDeviceState(VFIO_DEVICE_STATE_STOP);
    return bytes << 32 | sum.getValue();
  }
}
