package dev.tidemark.bench.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.MemorySegment;
import java.util.BitSet;
import org.junit.jupiter.api.Test;

class ProcessGuestTest extends GuestTests {
  @Override
  GuestBase create(long ramBytes) {
    return ProcessGuest.create(ramBytes, 0);
  }

  @Test
  void aDeviceWritesItsTestPagesAndTheRestIsReported() throws InterruptedException {
    try (ProcessGuest guest = ProcessGuest.create(RAM, 0)) {
      MemorySegment ram = guest.ram().memory();
      BitSet written = new BitSet();
      BitSet reported = new BitSet();
      guest.writeBy(
          (address, bytes) -> {
            written.set((int) (address >> GuestMemory.PAGE_SHIFT));
            MemorySegment.copy(bytes, 0, ram, address, GuestMemory.PAGE);
          });
      guest.onVmmWrite(
          (first, pages) -> {
            synchronized (reported) {
              reported.set((int) first, (int) (first + pages));
            }
          });
      guest.start();
      pass(guest);
      guest.pause();
      synchronized (reported) {
        reported.clear();
      }
      guest.resume();
      pass(guest);
      pass(guest);
      guest.pause();
      BitSet test = new BitSet();
      test.set((int) GuestMemory.FIRST_TEST_PAGE, (int) guest.ram().pages());
      assertEquals(test, written);
      assertTrue(reported.get((int) Mailbox.blockSeenPage()));
      assertFalse(reported.intersects(test));
    }
  }

  @Test
  void aWriteThatTheDeviceLosesIsNoticed() throws InterruptedException {
    try (ProcessGuest guest = ProcessGuest.create(RAM, 0)) {
      guest.writeBy((address, bytes) -> {});
      guest.start();
      assertFalse(guest.awaitFullPass(LONG));
      assertTrue(guest.error().isPresent());
    }
  }
}
