package dev.tidemark.bench.guest;

class ProcessGuestTest extends GuestTests {
  @Override
  GuestBase create(long ramBytes) {
    return ProcessGuest.create(ramBytes, 0);
  }
}
