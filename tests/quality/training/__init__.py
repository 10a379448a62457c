"""How the embedded engines came to know what they know: conversion of networks, photos with labels, the stuff head."""
